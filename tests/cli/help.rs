//! The help texts are what users read first: a change of them is seen in review.
//!
//! `PYOCO_UPDATE_GOLDEN=1 cargo test --test cli` writes the files anew.

use std::fs;
use std::path::Path;

use crate::support::process::{Binary, run};
use crate::support::wait::PATIENCE;

const COMMANDS: [(Binary, &str); 29] = [
    (Binary::Client, "pyoco-client"),
    (Binary::Client, "pyoco-client submit"),
    (Binary::Client, "pyoco-client submit-yaml"),
    (Binary::Client, "pyoco-client get"),
    (Binary::Client, "pyoco-client tasks"),
    (Binary::Client, "pyoco-client list"),
    (Binary::Client, "pyoco-client list-vnext"),
    (Binary::Client, "pyoco-client watch"),
    (Binary::Client, "pyoco-client cancel"),
    (Binary::Client, "pyoco-client workers"),
    (Binary::Client, "pyoco-client wheels"),
    (Binary::Client, "pyoco-client wheel-history"),
    (Binary::Client, "pyoco-client wheel-upload"),
    (Binary::Client, "pyoco-client wheel-delete"),
    (Binary::Client, "pyoco-client metrics"),
    (Binary::Client, "pyoco-client completions"),
    (Binary::Server, "pyoco-server"),
    (Binary::Server, "pyoco-server up"),
    (Binary::Server, "pyoco-server healthcheck"),
    (Binary::Server, "pyoco-server config"),
    (Binary::Worker, "pyoco-worker"),
    (Binary::Admin, "pyoco-server-admin"),
    (Binary::Admin, "pyoco-server-admin doctor"),
    (Binary::Admin, "pyoco-server-admin audit"),
    (Binary::Admin, "pyoco-server-admin api-key"),
    (Binary::Admin, "pyoco-server-admin api-key create"),
    (Binary::Admin, "pyoco-server-admin api-key list"),
    (Binary::Admin, "pyoco-server-admin api-key revoke"),
    (Binary::Admin, "pyoco-server-admin api-key rotate"),
];

#[test]
fn help_is_as_in_the_golden_files() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/help");
    let update = std::env::var_os("PYOCO_UPDATE_GOLDEN").is_some();
    for (program, name) in COMMANDS {
        let words = name.split(' ').skip(1);
        let ended = run(program.command().args(words).arg("--help"), b"", PATIENCE);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{name}");
        let path = folder.join(format!("{}.txt", name.replace(' ', "_")));
        if update {
            fs::write(&path, &ended.stdout).unwrap();
        }
        let golden = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(
            ended.stdout, golden,
            "`{name} --help` has changed; PYOCO_UPDATE_GOLDEN=1 refreshes the golden files"
        );
    }
}

#[test]
fn every_flag_of_the_python_client_is_there() {
    for (command, flags) in [
        ("submit", "--flow-name --params --params-file --param --tag --tags"),
        ("submit-yaml", "--workflow-file --flow-name --tag"),
        ("get", "--records"),
        ("tasks", ""),
        ("list", "--status --flow --tag --full --limit --output"),
        (
            "list-vnext",
            "--status --flow --tag --full --limit --updated-after --cursor \
             --workflow-yaml-sha256 --output",
        ),
        ("watch", "--records --since --timeout-sec --max-events --until-terminal --output --exit-status"),
        ("cancel", "--run-id --wait --timeout-sec"),
        ("workers", "--scope --state --include-hidden --limit --output"),
        ("wheels", ""),
        ("wheel-history", "--limit --wheel-name --action"),
        (
            "wheel-upload",
            "--wheel-file --tags --replace --no-replace --preflight --allow-no-entry-points \
             --allow-missing-usage-doc",
        ),
        ("wheel-delete", "--name"),
        ("metrics", ""),
    ] {
        let help = run(Binary::Client.command().args([command, "--help"]), b"", PATIENCE).stdout;
        let words: Vec<&str> = help.split([' ', '\n']).collect();
        for flag in flags.split_whitespace().chain(["--server", "--api-key", "--api-key-header"]) {
            assert!(words.contains(&flag), "{command} has no {flag}:\n{help}");
        }
    }
}

#[test]
fn version_and_completions_go_to_stdout() {
    let version = run(Binary::Client.command().arg("--version"), b"", PATIENCE);
    assert_eq!(version.code, Some(0));
    assert_eq!(version.stdout, format!("pyoco-client {}\n", pyoco_server::VERSION));
    for shell in ["bash", "zsh", "fish"] {
        let script = run(Binary::Client.command().args(["completions", shell]), b"", PATIENCE);
        assert_eq!(script.code, Some(0), "{}", script.stderr);
        assert!(script.stdout.contains("list-vnext"), "{shell}: {}", script.stdout);
    }
}
