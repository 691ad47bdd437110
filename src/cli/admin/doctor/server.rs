//! What the nats-server says of itself: its version, its limit of messages, how often it syncs.

use std::time::Duration;

use serde_json::Value;

use super::check::Check;
use crate::bus::{Bus, Server};
use crate::client::nats_monitor;
use crate::model::limits::{ADVISED_MAX_PAYLOAD, LEAST_MAX_PAYLOAD, low_max_payload};

/// Major, minor and patch of a version.
type Version = [u64; 3];

/// Older servers lack what the programs need.
const OLDEST_SERVER: Version = [2, 10, 0];
/// Older servers lack fixes of data loss.
const ADVISED_SERVER: Version = [2, 12, 3];

/// Where a nats-server on this machine usually has its monitoring.
const DEFAULT_MONITOR: &str = "http://127.0.0.1:8222";
const MONITOR_TIMEOUT: Duration = Duration::from_secs(2);
const NANOS_PER_SEC: f64 = 1e9;

pub fn nats(server: Option<&Server>) -> Check {
    let Some(server) = server else { return Check::new("nats").failed("no connection to NATS") };
    let mut check = Check::new("nats").with("server", format!("{} {}", server.name, server.version));
    match version(&server.version) {
        Some(version) if version < OLDEST_SERVER => check.fail(format!(
            "nats-server {} is too old: it lacks what the programs need; install 2.12.3 or later",
            server.version
        )),
        Some(version) if version < ADVISED_SERVER => check.warn(format!(
            "nats-server {} lacks fixes of the loss of acknowledged messages after a crash; install 2.12.3 \
             or later",
            server.version
        )),
        _ => {}
    }
    check
}

/// `None` for what has no number, of which nothing is known.
fn version(text: &str) -> Option<Version> {
    let mut numbers = text.trim_start_matches('v').split(['.', '-', '+']).map(|part| part.parse().ok());
    let [major, minor] = [numbers.next()??, numbers.next()??];
    Some([major, minor, numbers.next().flatten().unwrap_or(0)])
}

pub fn max_payload(bus: &Bus) -> Check {
    let bytes = bus.max_payload(ADVISED_MAX_PAYLOAD);
    let mut check = Check::new("max_payload").with("bytes", bytes);
    match low_max_payload(bytes) {
        Some(reason) if bytes < LEAST_MAX_PAYLOAD => check.fail(reason),
        Some(reason) => check.warn(reason),
        None => {}
    }
    check
}

/// What the monitoring endpoint of the server says, or why that is unknown.
pub struct Monitor(Result<Value, String>);

impl Monitor {
    pub fn ask(server: Option<&Server>, url: Option<&str>) -> Monitor {
        Monitor(Self::varz(server, url))
    }

    fn varz(server: Option<&Server>, url: Option<&str>) -> Result<Value, String> {
        let server = server.ok_or("there is no connection to NATS")?;
        let is_local = server.address.is_some_and(|address| address.ip().is_loopback());
        if url.is_none() && !is_local {
            return Err("NATS is on another machine, and PYOCO_NATS_MONITOR_URL is not set".to_owned());
        }
        let asked = url.unwrap_or(DEFAULT_MONITOR);
        let varz = nats_monitor::varz(asked, MONITOR_TIMEOUT).map_err(|e| e.to_string())?;
        // The usual port may be that of another server here. An operator who names one knows which.
        if url.is_none() && varz["server_id"] != server.id.as_str() {
            return Err(format!("{asked} is the monitoring of another nats-server"));
        }
        Ok(varz)
    }

    /// Settings and figures of JetStream, each an object.
    pub fn jetstream(&self) -> Result<(&Value, &Value), String> {
        let varz = self.0.as_ref().map_err(String::clone)?;
        let (config, stats) = (&varz["jetstream"]["config"], &varz["jetstream"]["stats"]);
        match config.is_object() {
            true => Ok((config, stats)),
            false => Err("the server that PYOCO_NATS_MONITOR_URL names runs no JetStream".to_owned()),
        }
    }
}

pub fn sync_interval(monitor: &Monitor) -> Check {
    let check = Check::new("sync_interval");
    let how = "start nats-server with its monitoring port (`-m 8222`) and name that with \
               PYOCO_NATS_MONITOR_URL, or look for `sync_interval: always` in its configuration";
    let unknown = |why: &str| {
        let told = Check::new("sync_interval").with("sync_interval", "unknown");
        told.with("reason", why).with("hint", how)
    };
    let config = match monitor.jetstream() {
        Ok((config, _)) => config,
        Err(why) => return unknown(&why),
    };
    match (config["sync_always"].as_bool(), config["sync_interval"].as_u64()) {
        (Some(true), _) => check.with("sync_interval", "always"),
        (_, Some(nanos)) => {
            let interval = format!("{}s", nanos as f64 / NANOS_PER_SEC);
            let mut check = check.with("sync_interval", interval.as_str());
            check.warn(format!(
                "a power failure loses what NATS has acknowledged in up to {interval}; set `sync_interval: \
                 always` in the `jetstream` block of its configuration, or keep three replicas on machines \
                 that do not fail together"
            ));
            check
        }
        (_, None) => unknown("this nats-server does not say it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_servers_are_told_apart() {
        let judged = |version: &str| {
            let server = Server {
                id: String::new(),
                name: "n".to_owned(),
                version: version.to_owned(),
                address: None,
                is_in_cluster: false,
            };
            let mut report = super::super::check::Report::default();
            report.add(nats(Some(&server)));
            let line: Value = serde_json::from_str(report.text()).unwrap();
            (line["ok"] == true, line["warning"].is_string())
        };
        for good in ["2.12.3", "2.12.10", "2.15.1", "3.0.0", "v2.14.0-RC.1", "dev", ""] {
            assert_eq!(judged(good), (true, false), "{good}");
        }
        for behind in ["2.12.2", "2.10.0", "2.11.11", "2.10.29-beta", "2.12"] {
            assert_eq!(judged(behind), (true, true), "{behind}");
        }
        for old in ["2.9.25", "1.4.1", "2.9"] {
            assert_eq!(judged(old), (false, false), "{old}");
        }
    }
}
