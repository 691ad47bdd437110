//! Real reverse proxies in front of a gateway: nginx, Caddy and HAProxy with the configurations that
//! `docs/operations.md` shows, on loopback ports and in a folder of their own.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::http::Client;
use super::port::PortLease;
use super::process::{Running, without_settings};
use super::wait::PATIENCE;

/// Where the configurations are shown.
const PAGE: &str = include_str!("../../docs/operations.md");
/// The gateway's address in them.
const SHOWN_GATEWAY: &str = "127.0.0.1:8000";
/// Debian keeps servers where only root's `PATH` looks.
const SYSTEM_FOLDERS: &str = ":/usr/local/sbin:/usr/sbin:/sbin";

/// Programs that stand in front of a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Nginx,
    Caddy,
    HaProxy,
}

/// A running proxy, killed on drop. Its client asks the gateway through it.
pub struct ReverseProxy {
    pub process: Running,
    pub client: Client,
    _port: PortLease,
    _folder: TempDir,
}

impl ReverseProxy {
    /// Starts a proxy in front of `gateway`; returns when it accepts connections.
    pub fn start(kind: Kind, gateway: SocketAddr) -> ReverseProxy {
        let port = PortLease::take();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.port()));
        let folder = tempfile::Builder::new().prefix("pyoco-proxy-").tempdir().unwrap();
        let config = folder.path().join("proxy.conf");
        fs::write(&config, kind.config(folder.path(), address, gateway)).unwrap();
        let mut process = Running::start(&mut kind.command(folder.path(), &config));
        process.wait_for_port(address, PATIENCE);
        ReverseProxy { process, client: Client::to(address), _port: port, _folder: folder }
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Nginx => "nginx",
            Kind::Caddy => "caddy",
            Kind::HaProxy => "haproxy",
        }
    }

    /// Its configuration as the page shows it, with these addresses, without TLS, and with what the page
    /// leaves to the file around it.
    fn config(self, folder: &Path, address: SocketAddr, gateway: SocketAddr) -> String {
        let put = |text: String, shown: &str, ours: &str| {
            assert!(text.contains(shown), "{shown:?} is not shown for {}:\n{text}", self.name());
            text.replace(shown, ours)
        };
        let shown = put(self.shown(), SHOWN_GATEWAY, &gateway.to_string());
        match self {
            Kind::Nginx => {
                let shown = put(shown, "listen 443 ssl;", &format!("listen {address};"));
                // What it is behind TLS, where the page has it.
                let shown = put(shown, "$scheme", "https");
                let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                    .map(|name| format!("    {name}_temp_path {}/{name};\n", folder.display()))
                    .concat();
                format!(
                    "{user}daemon off;\nworker_processes 1;\npid {folder}/pid;\n\
                     error_log stderr;\nevents {{}}\nhttp {{\n    access_log off;\n{temporary}\
                     {shown}}}\n",
                    // Its worker could not enter the folder of this test as another user.
                    user = if rustix::process::geteuid().is_root() { "user root;\n" } else { "" },
                    folder = folder.display(),
                )
            }
            Kind::Caddy => {
                let shown = put(shown, "pyoco.example.com {", &format!("http://{address} {{"));
                format!("{{\n    admin off\n}}\n{shown}")
            }
            Kind::HaProxy => {
                let bind = "bind :443 ssl crt /etc/haproxy/pyoco.pem";
                put(shown, bind, &format!("bind {address}"))
            }
        }
    }

    /// The block of the page that follows the line with its name.
    fn shown(self) -> String {
        let (_, section) = PAGE.split_once("\n## Behind a reverse proxy\n").unwrap();
        let (section, _) = section.split_once("\n## ").unwrap();
        let begins = |line: &str| line.to_ascii_lowercase().starts_with(self.name());
        let lines = section.lines().skip_while(|line| !begins(line));
        let block = lines.skip_while(|line| !line.starts_with("```")).skip(1);
        block.take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect()
    }

    fn command(self, folder: &Path, config: &Path) -> Command {
        let mut command = without_settings(self.program());
        match self {
            Kind::Nginx => command.args(["-e", "stderr", "-p"]).arg(folder).arg("-c").arg(config),
            Kind::Caddy => command.args(["run", "--adapter", "caddyfile", "--config"]).arg(config),
            // In the foreground, as one process.
            Kind::HaProxy => command.args(["-db", "-f"]).arg(config),
        };
        for name in ["HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"] {
            command.env(name, folder);
        }
        command.current_dir(folder);
        command
    }

    /// Named by its variable, or found where programs are.
    fn program(self) -> PathBuf {
        let variable = format!("PYOCO_TEST_{}", self.name().to_ascii_uppercase());
        if let Some(path) = std::env::var_os(&variable).filter(|path| !path.is_empty()) {
            return PathBuf::from(path);
        }
        let mut path = std::env::var_os("PATH").unwrap_or_default();
        path.push(SYSTEM_FOLDERS);
        let candidates = std::env::split_paths(&path).map(|folder| folder.join(self.name()));
        candidates.into_iter().find(|path| path.is_file()).unwrap_or_else(|| {
            panic!("no {}; run `bash tests/setup.sh proxies`, or set {variable}", self.name())
        })
    }
}
