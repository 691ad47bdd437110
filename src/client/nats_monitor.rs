//! Asks the monitoring endpoint of a nats-server, which speaks HTTP.

use std::time::Duration;

use serde_json::Value;
use ureq::http::Method;

use super::transport::Call;
use super::{Client, ClientSettings, Error};

/// General figures and settings of the server at `url` (`http://host:port`), its `/varz`.
pub(crate) fn varz(url: &str, timeout: Duration) -> Result<Value, Error> {
    let client = Client::new(ClientSettings {
        server: url.to_owned(),
        api_key: None,
        api_key_header: String::new(),
        timeout,
    })?;
    client.json(&Call::new(Method::GET, "/varz"))
}
