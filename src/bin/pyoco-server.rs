//! `pyoco-server`: the gateway, and with flags a whole installation in one process.

use std::process::ExitCode;

fn main() -> ExitCode {
    pyoco_server::cli::server::main(std::env::args_os()).into()
}
