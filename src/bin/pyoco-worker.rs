//! `pyoco-worker`: pulls jobs and executes them.

use std::process::ExitCode;

fn main() -> ExitCode {
    pyoco_server::cli::worker::main(std::env::args_os()).into()
}
