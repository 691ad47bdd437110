//! `pyoco-server-admin`: looks after an installation, directly over NATS.

mod audit;
mod doctor;
mod duration;
mod keys;

use std::ffi::OsString;
use std::time::Duration;

use clap::{Parser, Subcommand};

use super::exit::Exit;
use super::program;
use crate::bus::Bus;
use crate::gateway::auth::hash::Pepper;
use crate::model::error::Code;

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
    /// Check NATS, streams, buckets and consumers; exit 1 when something does not work
    Doctor {
        /// Change settings that differ from those asked for, where that loses nothing
        #[arg(long)]
        fix: bool,
    },
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
        let monitor_url = config.nats.monitor_url.as_deref();
        match args.command {
            Command::Init => {
                bus.ensure_resources().map_err(unavailable)?;
                Ok(doctor::run(&bus, monitor_url, false))
            }
            Command::Doctor { fix } => Ok(doctor::run(&bus, monitor_url, fix)),
            Command::ApiKey(command) => {
                let pepper = Pepper::new(config.auth.pepper);
                keys::run(command, &bus.auth(), &pepper, &bus.audit())
            }
            Command::Audit(show) => audit::show(&show, &bus.audit()),
        }
    })
}
