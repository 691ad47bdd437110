//! `pyoco-server-admin`: looks after an installation, directly over NATS.

mod audit;
mod duration;
mod keys;

use std::ffi::OsString;
use std::time::Duration;

use clap::{Parser, Subcommand};
use serde_json::{Value, json};

use super::exit::Exit;
use super::failure::Failure;
use super::program;
use crate::bus::Bus;
use crate::gateway::auth::hash::Pepper;
use crate::model::error::Code;
use crate::model::limits::{ADVISED_MAX_PAYLOAD, LEAST_MAX_PAYLOAD, low_max_payload};

pub const PROGRAM: &str = "pyoco-server-admin";
/// For the first connection; an operator waits for the answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Looks after an installation
#[derive(Debug, Parser)]
#[command(name = "pyoco-server-admin", version, disable_help_subcommand = true)]
struct Args {
    /// Where NATS is [env: PYOCO_NATS_URL] [default: nats://127.0.0.1:4222]
    #[arg(long, global = true)]
    nats_url: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create the streams and buckets that are missing, and print what is there
    Init,
    /// Check NATS, streams and buckets; exit 1 when something is wrong
    Doctor,
    /// Make, list, revoke and replace API keys
    #[command(subcommand)]
    ApiKey(keys::KeyCommand),
    /// Show who has changed what
    Audit(audit::Show),
}

pub fn main(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    program::run(PROGRAM, arguments, |args: Args| {
        let mut config = program::settings("pyoco-server:admin", Some("warning"))?;
        if let Some(url) = args.nats_url {
            config.nats.url = url;
        }
        let unavailable = |e| program::failed(Code::NatsUnavailable, "cannot use the NATS settings", e);
        let bus = Bus::start(&config.nats, &config.resources).map_err(unavailable)?;
        if !bus.wait_connected(CONNECT_TIMEOUT) {
            let reason = format!("no connection within {CONNECT_TIMEOUT:?}");
            return Err(program::failed(Code::NatsUnavailable, "cannot reach NATS", reason));
        }
        match args.command {
            Command::Init => {
                bus.ensure_resources().map_err(unavailable)?;
                report(&bus)
            }
            Command::Doctor => report(&bus),
            Command::ApiKey(command) => {
                let pepper = Pepper::new(config.auth.pepper);
                keys::run(command, &bus.auth(), &pepper, &bus.audit())
            }
            Command::Audit(show) => audit::show(&show, &bus.audit()),
        }
    })
}

/// One JSON document per check.
fn report(bus: &Bus) -> Result<Exit, Failure> {
    let mut text = format!("{}\n", json!({"check": "nats", "ok": true, "server": bus.state().server}));
    let max_payload = bus.max_payload(ADVISED_MAX_PAYLOAD);
    let mut all_ok = max_payload >= LEAST_MAX_PAYLOAD;
    let mut line = json!({"check": "max_payload", "ok": all_ok, "bytes": max_payload});
    if let Some(reason) = low_max_payload(max_payload) {
        line[if all_ok { "warning" } else { "error" }] = reason.into();
    }
    text.push_str(&format!("{line}\n"));
    for (name, found) in bus.inspect() {
        all_ok &= found.is_ok();
        let line: Value = match found {
            Ok(details) => json!({"check": name, "ok": true, "details": details}),
            Err(e) => json!({"check": name, "ok": false, "error": e.to_string()}),
        };
        text.push_str(&format!("{line}\n"));
    }
    let printed = program::print(&text);
    Ok(if all_ok { printed } else { Exit::Failed })
}
