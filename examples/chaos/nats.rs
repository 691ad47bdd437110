//! The nats-server: users with the smallest permissions, every write on the disk before it is acknowledged.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::Error;
use super::programs::{log_file, send};

/// Password of all three users.
pub const PASSWORD: &str = "chaos";
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// From a start, or a reload, to its effect.
const READY_DEADLINE: Duration = Duration::from_secs(60);

/// What docs/operations.md gives a gateway.
const GATEWAY: &str = r#""pyoco.work.*", "pyoco.dlq.*", "pyoco.audit.>", "$JS.ACK.PYOCO_WORK.>", "$KV.pyoco_runs.>",
  "$KV.pyoco_workers.>", "$KV.pyoco_auth.>", "$KV.pyoco_wheel_history.>", "$O.pyoco_wheels.>",
  "$JS.API.STREAM.INFO.*", "$JS.API.STREAM.MSG.GET.*", "$JS.API.DIRECT.GET.>",
  "$JS.API.STREAM.PURGE.OBJ_pyoco_wheels", "$JS.API.STREAM.MSG.DELETE.PYOCO_WORK",
  "$JS.API.CONSUMER.LIST.PYOCO_WORK",
  "$JS.API.CONSUMER.INFO.PYOCO_WORK.*", "$JS.API.CONSUMER.CREATE.*.*", "$JS.API.CONSUMER.MSG.NEXT.*.*",
  "$JS.API.CONSUMER.DELETE.*.*""#;
/// What it gives a worker, without the right to write snapshots.
const WORKER: &str = r#""pyoco.work.*", "pyoco.dlq.*", "$JS.ACK.PYOCO_WORK.>", "$JS.ACK.PYOCO_ADVISORY.>",
  "$KV.pyoco_workers.>", "$JS.API.STREAM.INFO.*", "$JS.API.STREAM.MSG.GET.*", "$JS.API.DIRECT.GET.>",
  "$JS.API.STREAM.MSG.DELETE.PYOCO_WORK", "$JS.API.CONSUMER.INFO.*.*", "$JS.API.CONSUMER.MSG.NEXT.*.*",
  "$JS.API.CONSUMER.DURABLE.CREATE.PYOCO_WORK.*", "$JS.API.CONSUMER.DURABLE.CREATE.PYOCO_ADVISORY.*""#;
const SNAPSHOTS: &str = r#", "$KV.pyoco_runs.>""#;

/// A server whose store survives its process.
pub struct Nats {
    pub port: u16,
    dir: PathBuf,
    child: Option<Child>,
}

impl Nats {
    /// Starts one that keeps everything below `dir`.
    pub fn start(dir: &Path) -> Result<Nats, Error> {
        let mut nats = Nats { port: free_port()?, dir: dir.to_owned(), child: None };
        nats.launch()?;
        Ok(nats)
    }

    /// Starts it again on the same port and store.
    pub fn launch(&mut self) -> Result<(), Error> {
        self.write_config(true)?;
        let mut command = Command::new(program());
        command.arg("-c").arg(self.config()).stderr(log_file(&self.dir, "nats")?);
        self.child = Some(command.spawn().map_err(|e| format!("cannot start nats-server: {e}"))?);
        self.until("JetStream answers", |nats| nats.call("INFO", "").is_ok())
    }

    /// Ends with the signal, and returns when the process is gone.
    pub fn end(&mut self, signal: Signal) -> Result<(), Error> {
        if let Some(mut child) = self.child.take() {
            send(&child, signal)?;
            child.wait()?;
        }
        Ok(())
    }

    pub fn signal(&self, signal: Signal) -> Result<(), Error> {
        self.child.as_ref().map_or(Ok(()), |child| send(child, signal))
    }

    /// Takes the right to write snapshots from workers, or gives it back.
    pub fn permit_snapshots(&self, permitted: bool) -> Result<(), Error> {
        let reloads = |nats: &Nats| {
            let log = fs::read_to_string(nats.dir.join("nats.log")).unwrap_or_default();
            log.matches("Reloaded server configuration").count()
        };
        let before = reloads(self);
        self.write_config(permitted)?;
        self.signal(Signal::HUP)?;
        self.until("nats-server reads its settings again", |nats| reloads(nats) > before)
    }

    /// Calls `$JS.API.<call>` as a user who may do all.
    pub fn call(&self, call: &str, body: &str) -> Result<Value, Error> {
        let connection =
            nats::Options::with_user_pass("admin", PASSWORD).connect(format!("127.0.0.1:{}", self.port))?;
        let answer = connection.request_timeout(&format!("$JS.API.{call}"), body, CALL_TIMEOUT);
        let answer: Value = serde_json::from_slice(&answer?.data)?;
        connection.close();
        match answer.get("error") {
            Some(error) => Err(format!("{call}: {error}").into()),
            None => Ok(answer),
        }
    }

    /// Makes a stream refuse whatever needs more room than it takes now; gives back its settings.
    pub fn fill(&self, stream: &str) -> Result<Value, Error> {
        let mut info = self.call(&format!("STREAM.INFO.{stream}"), "")?;
        let before = info["config"].take();
        let mut full = before.clone();
        full["max_bytes"] = info["state"]["bytes"].as_u64().unwrap_or(0).max(1).into();
        full["discard"] = "new".into();
        self.call(&format!("STREAM.UPDATE.{stream}"), &full.to_string())?;
        Ok(before)
    }

    /// Gives a stream its settings back.
    pub fn free(&self, stream: &str, before: &Value) -> Result<(), Error> {
        self.until("the stream has its settings back", |nats| {
            nats.call(&format!("STREAM.UPDATE.{stream}"), &before.to_string()).is_ok()
        })
    }

    fn until(&self, what: &str, is_so: impl Fn(&Nats) -> bool) -> Result<(), Error> {
        let deadline = Instant::now() + READY_DEADLINE;
        while !is_so(self) {
            if Instant::now() > deadline {
                return Err(format!("waited in vain until {what}").into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn config(&self) -> PathBuf {
        self.dir.join("nats.conf")
    }

    fn write_config(&self, snapshots: bool) -> Result<(), Error> {
        let user = |name: &str, publish: &str| {
            format!(
                "{{ user: {name}, password: {PASSWORD}, permissions: {{ subscribe: [\"_INBOX.>\"], \
                 publish: [{publish}] }} }}"
            )
        };
        let worker = format!("{WORKER}{}", if snapshots { SNAPSHOTS } else { "" });
        let text = format!(
            "listen: \"127.0.0.1:{}\"\njetstream {{ store_dir: {:?}, sync_interval: always }}\n\
             authorization {{ users: [\n{{ user: admin, password: {PASSWORD} }}\n{}\n{}\n] }}\n",
            self.port,
            self.dir.join("store"),
            user("gateway", GATEWAY),
            user("worker", &worker),
        );
        Ok(fs::write(self.config(), text)?)
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is reaped.
        let _ = self.end(Signal::KILL);
    }
}

/// The program, as the tests find it.
pub fn program() -> String {
    std::env::var("PYOCO_NATS_SERVER_BIN").unwrap_or_else(|_| "nats-server".to_owned())
}

/// A port that nobody listened on a moment ago.
pub fn free_port() -> Result<u16, Error> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
