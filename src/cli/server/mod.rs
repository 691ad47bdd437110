//! `pyoco-server`: the gateway, and what it can start beside itself.
//!
//! [`args`] is the command line, [`up`] the main command, [`check`] the small ones.
//! [`nats_child`] is the nats-server of `--with-nats`: started before anything that needs it,
//! dropped after everything that used it.

pub mod args;
mod check;
pub mod nats_child;
mod probe;
mod up;

use std::ffi::OsString;

use args::{Args, Command};

use super::exit::Exit;
use super::program;

pub const PROGRAM: &str = "pyoco-server";

pub fn main(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    program::run(PROGRAM, arguments, |args: Args| match args.command {
        None => up::up(args.up),
        Some(Command::Up(up)) => up::up(up),
        Some(Command::Healthcheck { url }) => check::healthcheck(&url),
        Some(Command::Config(command)) => check::config(command),
    })
}
