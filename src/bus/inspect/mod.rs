//! What is in NATS beside what the settings ask for, whose it is, and changes of settings that lose nothing.
//!
//! Nothing here creates, deletes or purges, and what belongs to another installation is never changed.

pub(crate) mod look;
pub(crate) mod settings;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bus::jetstream::{self, ownership, resources};
use crate::bus::{Bus, Error, Result};
use settings::Difference;

/// Pages of the server's list of consumers that are read, of 256 each.
const MAX_CONSUMER_PAGES: usize = 128;
/// For the list as a whole; each page is quick.
const CONSUMERS_TIMEOUT: Duration = Duration::from_secs(20);
/// A NATS user who may not ask gets no answer, so waiting for longer only delays the rest.
const ACCOUNT_TIMEOUT: Duration = Duration::from_secs(2);

/// The server that requests go to, as it says of itself.
#[derive(Debug, Clone)]
pub struct Server {
    pub id: String,
    pub name: String,
    pub version: String,
    pub address: Option<SocketAddr>,
    /// Whether it is one node of several.
    pub is_in_cluster: bool,
}

/// A stream (those behind buckets too) or a consumer that is there and ours.
#[derive(Debug, Clone)]
pub struct Inspected {
    pub name: String,
    /// What JetStream says of it: `config`, and `state` of a stream.
    pub info: Value,
    /// The settings that are not what this program would create it with.
    pub differences: Vec<Difference>,
    /// The stream of a consumer.
    stream: Option<String>,
    asked: Value,
}

/// What was found under each name.
type Named<T> = Vec<(String, Result<T>)>;

impl Inspected {
    fn stream(asked: Value, info: Value, python_bucket: bool) -> Result<Inspected> {
        ownership::check_stream(&asked, &info["config"])?;
        let name = asked["name"].as_str().unwrap_or_default().to_owned();
        let differences = settings::of_stream(&asked, &info["config"], python_bucket);
        Ok(Inspected { name, info, differences, stream: None, asked })
    }

    fn consumer(stream: &str, asked: Value, info: Value) -> Result<Inspected> {
        ownership::check_consumer(&asked, &info["config"])?;
        let name = asked["durable_name"].as_str().unwrap_or_default().to_owned();
        let differences = settings::of_consumer(&asked, &info["config"]);
        Ok(Inspected { name, info, differences, stream: Some(stream.to_owned()), asked })
    }

    pub fn is_consumer(&self) -> bool {
        self.stream.is_some()
    }

    /// Whether it lies in a cluster, which may not be that of the server that requests go to (a leaf node).
    pub fn is_in_cluster(&self) -> bool {
        let cluster = &self.info["cluster"];
        let has_replicas = cluster["replicas"].as_array().is_some_and(|replicas| !replicas.is_empty());
        has_replicas || cluster["raft_group"].as_str().is_some_and(|group| !group.is_empty())
    }
}

impl Bus {
    pub fn server(&self) -> Option<Server> {
        let link = &self.inner.control;
        let info = link.server_info()?;
        // A node names its own address too; one that may not name any says nothing of the others.
        let is_in_cluster = !info.cluster.is_empty() && info.connect_urls.len() != 1;
        Some(Server {
            id: info.server_id,
            name: info.server_name,
            version: info.version,
            address: link.address(),
            is_in_cluster,
        })
    }

    /// Each stream by its name, those behind buckets too. `None` for one that is missing, which is no fault:
    /// it is created when it is first needed.
    pub fn inspect(&self) -> Named<Option<Inspected>> {
        let workers = resources::workers_bucket(&self.inner.resources).stream["name"].take();
        let inspected = |asked: Value| {
            let is_of_workers = asked["name"] == workers;
            let name = asked["name"].as_str().unwrap_or_default().to_owned();
            let found = match self.ask(&format!("STREAM.INFO.{name}"), &Value::Null) {
                Err(Error::Api { code: 404, .. }) => Ok(None),
                info => info.and_then(|info| Inspected::stream(asked, info, is_of_workers)).map(Some),
            };
            (name, found)
        };
        resources::all_streams(&self.inner.resources).into_iter().map(inspected).collect()
    }

    /// The name of the work stream, and the consumers that programs of this installation pull from, each by
    /// its name. None when the streams are missing.
    pub fn inspect_consumers(&self) -> (String, Result<Named<Inspected>>) {
        let config = &self.inner.resources;
        let stream = resources::work_stream_name(config);
        let deadline = Instant::now() + CONSUMERS_TIMEOUT;
        let infos = match jetstream::consumers(&self.inner.control, &stream, MAX_CONSUMER_PAGES, deadline) {
            Err(Error::Api { code: 404, .. }) => Vec::new(),
            Err(e) => return (stream, Err(e)),
            Ok(consumers) => consumers.infos,
        };
        let mut inspected = Vec::new();
        for info in infos {
            let name = info["name"].as_str().unwrap_or_default().to_owned();
            if let Some(tag) = resources::tag_of(config, &name) {
                let asked = resources::tag_consumer(config, tag);
                inspected.push((name, Inspected::consumer(&stream, asked, info)));
            }
        }
        let (advisories, name) =
            (resources::advisory_stream_name(config), resources::advisory_consumer_name(config));
        match self.ask(&format!("CONSUMER.INFO.{advisories}.{name}"), &Value::Null) {
            Err(Error::Api { code: 404, .. }) => {}
            Err(e) => return (stream, Err(e)),
            Ok(info) => {
                let asked = resources::advisory_consumer(config);
                inspected.push((name, Inspected::consumer(&advisories, asked, info)));
            }
        }
        (stream, Ok(inspected))
    }

    /// Gives one setting of a stream or consumer the value that is asked for. The other settings stay as they
    /// are at this moment.
    pub fn fix(&self, inspected: &Inspected, difference: &Difference) -> Result<()> {
        let name = &inspected.name;
        let newest = match &inspected.stream {
            None => self.ask(&format!("STREAM.INFO.{name}"), &Value::Null)?,
            Some(stream) => self.ask(&format!("CONSUMER.INFO.{stream}.{name}"), &Value::Null)?,
        };
        let mut config = newest["config"].clone();
        match &inspected.stream {
            None => ownership::check_stream(&inspected.asked, &config)?,
            Some(_) => ownership::check_consumer(&inspected.asked, &config)?,
        }
        config[difference.setting] = difference.raw.clone();
        match &inspected.stream {
            None => self.ask(&format!("STREAM.UPDATE.{name}"), &config)?,
            Some(stream) => {
                // An update alone: a consumer that somebody has just deleted is not made anew.
                let body = json!({"stream_name": stream, "config": config, "action": "update"});
                self.ask(&format!("CONSUMER.DURABLE.CREATE.{stream}.{name}"), &body)?
            }
        };
        Ok(())
    }

    /// What the account uses of JetStream, and its limits. A NATS user who may not ask gets
    /// [`Error::Timeout`].
    pub fn account(&self) -> Result<Value> {
        let timeout = self.inner.timeout.min(ACCOUNT_TIMEOUT);
        jetstream::call(&self.inner.control, "INFO", &Value::Null, timeout)
    }

    fn ask(&self, call: &str, body: &Value) -> Result<Value> {
        jetstream::call(&self.inner.control, call, body, self.inner.timeout)
    }
}
