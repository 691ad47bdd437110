//! `pyoco-server-admin`: looks after an installation.

use std::process::ExitCode;

fn main() -> ExitCode {
    pyoco_server::cli::admin::main(std::env::args_os()).into()
}
