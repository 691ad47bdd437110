//! `pyoco-server healthcheck`, `config show` and `config check`.

use std::time::Duration;

use super::args::ConfigCommand;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::program;
use crate::client::{Client, ClientSettings};
use crate::config::{Config, Origin, Source};
use crate::model::error::Code;

/// For the whole question; a probe that takes longer is a bad sign by itself.
const HEALTHCHECK_TIMEOUT: Duration = Duration::from_secs(3);

pub(super) fn healthcheck(url: &str) -> Result<Exit, Failure> {
    let unready =
        |e: crate::client::Error| program::failed(Code::GatewayUnreachable, "the gateway is not ready", e);
    let client = Client::new(ClientSettings {
        server: url.to_owned(),
        api_key: None,
        api_key_header: "X-API-Key".to_owned(),
        timeout: HEALTHCHECK_TIMEOUT,
    })
    .map_err(unready)?;
    let ready = client.ready().map_err(unready)?;
    Ok(program::print(&format!("{ready}\n")))
}

pub(super) fn config(command: ConfigCommand) -> Result<Exit, Failure> {
    let source = Source::from_process();
    let loaded = Config::load(&source);
    let problems = source.problems().iter().cloned();
    let problems: Vec<String> = problems.chain(loaded.warnings.iter().map(ToString::to_string)).collect();
    if let ConfigCommand::Show = command {
        let mut text = String::new();
        for setting in &loaded.settings {
            let origin = match setting.origin {
                Origin::Environment => "environment",
                Origin::EnvFile => ".env",
                Origin::Default => "default",
            };
            text.push_str(&format!("{}={}  # {origin}\n", setting.name, setting.value));
        }
        problems.iter().for_each(|problem| program::message(problem));
        return Ok(program::print(&text));
    }
    if problems.is_empty() {
        return Ok(program::print("all settings can be read\n"));
    }
    let hint = "correct or remove the named variables; `pyoco-server config show` lists them all";
    Err(Failure::usage(problems.join("; "), None, hint))
}
