//! The command line of `pyoco-server` (`docs/contract.md#command-lines`).

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};

use crate::config;

const EXAMPLES: &str = "\
Examples:
  pyoco-server up --with-nats --with-worker        everything on this machine
  pyoco-server up --nats-url nats://10.0.0.5:4222  a gateway in front of an existing NATS
  pyoco-server healthcheck                         exit 0 if the gateway is ready, else 1
  pyoco-server config show                         every setting and where it came from

Settings come from flags, then the environment (PYOCO_…), then .env; see docs/config.md.";

/// Runs the HTTP gateway
#[derive(Debug, Parser)]
#[command(
    name = "pyoco-server",
    version,
    after_help = EXAMPLES,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true
)]
pub struct Args {
    /// Without a command, `up` is meant.
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub up: Up,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the gateway until SIGTERM or Ctrl-C (the default)
    Up(Up),
    /// Ask a gateway whether it is ready; exit 0 or 1
    Healthcheck {
        /// The gateway
        #[arg(long, default_value = "http://127.0.0.1:8000")]
        url: String,
    },
    /// Show or check the settings
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub enum ConfigCommand {
    /// List every setting, its value (secrets masked) and where it came from
    Show,
    /// Exit 1 when a value does not parse
    Check,
}

#[derive(Debug, ClapArgs)]
pub struct Up {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// Port to listen on; 0 lets the system choose
    #[arg(long, default_value_t = 8000)]
    pub port: u16,
    /// Listen beyond this machine although nobody is asked for an API key
    /// [env: PYOCO_ALLOW_UNAUTHENTICATED]
    #[arg(long)]
    pub allow_unauthenticated: bool,
    /// trace, debug, info, warning or error [env: PYOCO_LOG_LEVEL] [default: info]
    #[arg(long)]
    pub log_level: Option<String>,
    /// Where NATS is [env: PYOCO_NATS_URL] [default: nats://127.0.0.1:4222]
    #[arg(long)]
    pub nats_url: Option<String>,
    /// Language of the dashboard: auto (that of the locale), ja or en [env: PYOCO_DASHBOARD_LANG]
    /// [default: auto]
    #[arg(long, value_parser = ["auto", "ja", "en"])]
    pub dashboard_lang: Option<String>,
    /// Believe X-Forwarded-For, -Proto and -Host of proxies in PYOCO_TRUSTED_PROXIES, or on this machine
    #[arg(long)]
    pub behind_proxy: bool,
    /// Start and supervise a local nats-server
    #[arg(long, alias = "with-nats-bootstrap")]
    pub with_nats: bool,
    /// Run a worker in this process
    #[arg(long)]
    pub with_worker: bool,
    /// Tags of that worker [default: PYOCO_DEFAULT_TAG]
    #[arg(long, value_delimiter = ',', requires = "with_worker")]
    pub worker_tags: Vec<String>,
    /// How that worker finds flows in Python by name [env: PYOCO_FLOW_RESOLVER]
    #[arg(
        long,
        value_name = "MODULE:FUNCTION|FILE.py:FUNCTION",
        value_parser = config::parse_resolver,
        requires = "with_worker"
    )]
    pub worker_flow_resolver: Option<String>,
    /// Address of the local nats-server
    #[arg(long, default_value = "127.0.0.1")]
    pub nats_listen_host: IpAddr,
    /// Its port
    #[arg(long, default_value_t = 4222)]
    pub nats_client_port: u16,
    /// Port of its monitoring pages, on loopback; none unless given
    #[arg(long)]
    pub nats_http_port: Option<u16>,
    /// Where it keeps its data, across restarts
    #[arg(long, default_value = ".pyoco/nats")]
    pub nats_store_dir: PathBuf,
    /// How long acknowledged data may wait for the disk: `always` or a duration such as 10s
    #[arg(long, default_value = "always")]
    pub nats_sync_interval: String,
}
