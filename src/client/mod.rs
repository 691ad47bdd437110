//! The blocking HTTP client of a gateway: one method per request, answers as the server said them.
//!
//! Every call ends within [`ClientSettings::timeout`], whatever the other side does, and reads a
//! bounded answer. Answers are [`serde_json::Value`]s, so that fields of newer servers get through;
//! whatever is no success is an [`Error`]. Redirects are followed to the same server only, so an
//! API key never goes elsewhere. It knows `model` and nothing of command lines, the environment
//! (but for the proxy, see [`Client::new`]) or what a gateway is made of.
//!
//! [`runs`] holds the requests about runs, [`events`] the streams, [`workers`] the workers and figures,
//! [`wheels`] the wheels.

mod address;
mod early_answer;
mod error;
mod events;
mod multipart;
pub(crate) mod nats_monitor;
mod runs;
mod transport;
mod upload;
mod wheels;
mod workers;

use std::time::Duration;

pub use error::Error;
pub use events::{Event, EventStream, WatchQuery};
pub use runs::{Include, ListQuery, PageQuery, Submission};
pub use wheels::{WheelHistoryQuery, WheelUpload};
pub use workers::WorkersQuery;

use address::Address;

/// Where the gateway is and how to speak to it.
#[derive(Debug, Clone)]
pub struct ClientSettings {
    /// `http://host:port`, with a path when a proxy puts the gateway below one.
    pub server: String,
    /// The plain key; in no log and in no error.
    pub api_key: Option<String>,
    /// The header that carries it.
    pub api_key_header: String,
    /// For one call as a whole.
    pub timeout: Duration,
}

/// A gateway as the client sees it. Connections are kept between calls, and shared by clones. A call
/// that gives no answer says why by an [`Error`].
///
/// ```no_run
/// use std::time::Duration;
///
/// use pyoco_server::client::{Client, ClientSettings, Include, Submission};
///
/// # fn main() -> Result<(), pyoco_server::client::Error> {
/// let client = Client::new(ClientSettings {
///     server: "http://127.0.0.1:8000".to_owned(),
///     api_key: std::env::var("PYOCO_API_KEY").ok(),
///     api_key_header: "X-API-Key".to_owned(),
///     timeout: Duration::from_secs(30),
/// })?;
/// let submission = Submission { flow_name: "main".to_owned(), ..Submission::default() };
/// let submitted = client.submit(&submission)?;
/// let run_id = submitted["run_id"].as_str().unwrap_or_default();
/// let run = client.get_run(run_id, Include::Records)?;
/// println!("{} {}", run["status"], run["task_records"]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    agent: ureq::Agent,
    address: Address,
    api_key: Option<(ureq::http::HeaderName, ureq::http::HeaderValue)>,
    timeout: Duration,
}

impl Client {
    /// Checks the settings; does not connect yet.
    ///
    /// `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` count for servers on other machines;
    /// a server on this one (`localhost` or a loopback address) is always asked directly, because
    /// a proxy would look for it on its own machine.
    ///
    /// # Errors
    /// [`Error::BadServer`] and [`Error::BadApiKey`].
    pub fn new(settings: ClientSettings) -> Result<Client, Error> {
        let address = Address::parse(&settings.server)?;
        let header = |key: &String| transport::api_key_header(&settings.api_key_header, key);
        let api_key = settings.api_key.as_ref().map(header).transpose()?;
        let agent = ureq::Agent::new_with_config(transport::config(&address));
        Ok(Client { agent, address, api_key, timeout: settings.timeout })
    }

    /// The same client with at most `timeout` for a call.
    pub fn within(&self, timeout: Duration) -> Client {
        Client { timeout: timeout.min(self.timeout), ..self.clone() }
    }

    /// The server as it was given, without a trailing slash.
    pub fn server(&self) -> &str {
        &self.address.base
    }
}

/// `text` as one segment of a path.
fn segment(text: &str) -> String {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
    const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
    match text {
        // A dot segment would be resolved away before the server sees it.
        "." => "%2E".to_owned(),
        ".." => "%2E%2E".to_owned(),
        text => utf8_percent_encode(text, KEPT).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_stays_one_segment() {
        assert_eq!(segment("7f3a-b_c.d~"), "7f3a-b_c.d~");
        assert_eq!(segment("a/b?c#d e%é"), "a%2Fb%3Fc%23d%20e%25%C3%A9");
        assert_eq!(segment(".."), "%2E%2E");
    }

    #[test]
    fn settings_are_checked_before_anything_is_sent() {
        let settings = |server: &str, key: Option<&str>| ClientSettings {
            server: server.to_owned(),
            api_key: key.map(str::to_owned),
            api_key_header: "X-API-Key".to_owned(),
            timeout: Duration::from_secs(1),
        };
        assert!(Client::new(settings("http://127.0.0.1:8000/", Some("pyoco_a.b"))).is_ok());
        let bad = Client::new(settings("http://h", Some("se\ncret"))).err().unwrap();
        assert!(matches!(bad, Error::BadApiKey { .. }));
        assert!(!bad.to_string().contains("cret"), "{bad}");
    }
}
