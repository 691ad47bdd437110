//! The connection: flag, then environment, then `.env`, then default.

use std::time::Duration;

use super::args::Connection;
use super::{Ending, PROGRAM};
use crate::cli::failure::Failure;
use crate::cli::program::message;
use crate::client::{Client, ClientSettings, Error};
use crate::config::Source;

/// For one call of `pyoco-client`, from the name lookup to the last byte of the answer.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(30);
/// The gateway, unless a flag or a setting names one.
const DEFAULT_SERVER: &str = "http://127.0.0.1:8000";
/// The header of the API key unless a flag or a setting names one (`docs/spec.md#api-keys`).
const DEFAULT_API_KEY_HEADER: &str = "X-API-Key";

/// A client for the connection that the command line and the environment describe.
pub fn client(connection: &Connection) -> Result<Client, Ending> {
    let source = Source::from_process();
    for problem in source.problems() {
        message(problem);
    }
    let setting = |flag: &Option<String>, name: &str| {
        flag.clone().or_else(|| source.get(name).map(|(value, _)| value.to_owned()))
    };
    let settings = ClientSettings {
        server: setting(&connection.server, "PYOCO_SERVER").unwrap_or_else(|| DEFAULT_SERVER.to_owned()),
        api_key: setting(&connection.api_key, "PYOCO_API_KEY"),
        api_key_header: setting(&connection.api_key_header, "PYOCO_HTTP_API_KEY_HEADER")
            .unwrap_or_else(|| DEFAULT_API_KEY_HEADER.to_owned()),
        timeout: CLIENT_TIMEOUT,
    };
    Client::new(settings).map_err(|error| {
        let way_out = match &error {
            Error::BadApiKey { .. } => "check --api-key (PYOCO_API_KEY) and --api-key-header",
            _ => "check --server or PYOCO_SERVER, for example http://127.0.0.1:8000",
        };
        Failure::usage(error.to_string(), None, format!("{way_out}; see `{PROGRAM} --help`")).into()
    })
}
