//! `pyoco-client`: submits, shows, watches and cancels runs, and looks after wheels, through a gateway.
//!
//! [`args`] is the command line, [`run`] does what it says, [`output`] writes it. A new command is
//! a variant in `args`, an arm in [`run`] and, when it does more than one call, a file of its own.

pub mod args;
mod failed_call;
mod output;
mod params;
mod progress;
mod run;
mod settings;
mod table;
mod wait;
mod watch;
pub mod wheel;

use std::ffi::OsString;
use std::io;

use clap::{CommandFactory, Parser};

use super::exit::Exit;
use super::failure::Failure;
use super::program::message;
use args::{Args, Command};
use output::Output;

pub const PROGRAM: &str = "pyoco-client";

pub fn main(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    exit_on_interrupt();
    let mut output = Output::stdout();
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let ending = match Args::try_parse_from(&arguments) {
        Ok(args) => command(args, &mut output),
        Err(error) if error.use_stderr() => {
            let named = arguments.iter().filter_map(|word| word.to_str()).find_map(usage_of);
            let usage = named.or_else(|| Some(usage(&mut Args::command())));
            Err(Ending::Failed(Failure::from_clap(&error, PROGRAM, usage)))
        }
        // Help and version are what was asked for.
        Err(text) => output.text(&text.render().to_string()).map(|()| Exit::Done),
    };
    match ending.and_then(|exit| output.finish().map(|()| exit)) {
        Ok(exit) => exit,
        // `pyoco-client list | head` has done its work when `head` has seen enough.
        Err(Ending::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
        Err(Ending::Output(error)) => {
            message(&format!("cannot write to stdout: {error}"));
            Exit::Failed
        }
        Err(Ending::Failed(failure)) => {
            // What was written before belongs before the message.
            let _ = output.finish();
            message(failure.to_string().trim_end());
            failure.exit
        }
    }
}

enum Ending {
    Failed(Failure),
    Output(io::Error),
}

impl From<Failure> for Ending {
    fn from(failure: Failure) -> Self {
        Ending::Failed(failure)
    }
}

fn command(args: Args, output: &mut Output) -> Result<Exit, Ending> {
    match args.command {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), PROGRAM, &mut script);
            output.text(&String::from_utf8_lossy(&script))?;
            Ok(Exit::Done)
        }
        command => {
            let client = settings::client(&args.connection)?;
            run::run(&client, command, output)
        }
    }
}

/// Ends the program with 130 on Ctrl-C, from within the signal: every wait is ended by it.
fn exit_on_interrupt() {
    let always = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let status = i32::from(Exit::Interrupted.code());
    let signal = signal_hook::consts::SIGINT;
    if let Err(error) = signal_hook::flag::register_conditional_shutdown(signal, status, always) {
        log::warn!("Ctrl-C ends with another exit code than {status}: {error}");
    }
}

fn usage_of(subcommand: &str) -> Option<String> {
    let mut command = Args::command();
    command.build();
    command.find_subcommand_mut(subcommand).map(usage)
}

fn usage(command: &mut clap::Command) -> String {
    command.render_usage().to_string().trim_start_matches("Usage: ").to_owned()
}
