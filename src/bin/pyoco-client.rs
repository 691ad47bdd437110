//! `pyoco-client`: submits, shows and cancels runs through a gateway.

use std::process::ExitCode;

fn main() -> ExitCode {
    pyoco_server::cli::client::main(std::env::args_os()).into()
}
