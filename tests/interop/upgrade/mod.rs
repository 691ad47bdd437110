//! Gateways and workers of the release before this one, of this one and of the Python package together on one
//! nats-server, as they are during an upgrade and on the way back.

mod fields;
mod forth_and_back;
mod oracle;

use serde_json::Value;

use crate::support::cluster::{Cluster, Gateway, Options, Worker, with_flags};
use crate::support::jetstream;
use crate::support::previous::Previous;
use crate::support::process::{Binary, Finished, run};
use crate::support::python::V08;
use crate::support::wait::PATIENCE;

/// Makes a lost delivery, and the runs of a worker that died, come again soon.
const SOON: [(&str, &str); 6] = [
    ("PYOCO_LOG_LEVEL", "WARNING"),
    ("PYOCO_NATS_REQUEST_TIMEOUT_SEC", "2"),
    ("PYOCO_RUN_HEARTBEAT_INTERVAL_SEC", "0.5"),
    ("PYOCO_WORKER_HEARTBEAT_INTERVAL_SEC", "0.5"),
    ("PYOCO_CONSUMER_ACK_WAIT_SEC", "6"),
    ("PYOCO_ACK_PROGRESS_INTERVAL_SEC", "1"),
];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Release {
    Previous,
    This,
}

use Release::{Previous as Older, This};

/// A nats-server, and the programs of both releases for it. `flows.py` is in the cluster's folder.
struct Fleet {
    cluster: Cluster,
    previous: Previous,
    resolver: String,
}

impl Fleet {
    fn new(previous: Previous, cluster: Cluster, flows: &str) -> Fleet {
        let resolver = format!("{}:resolve_flow", cluster.write("flows.py", flows));
        Fleet { cluster, previous, resolver }
    }

    fn command(&self, release: Release, binary: Binary) -> std::process::Command {
        match release {
            Older => self.previous.command(binary),
            This => binary.command(),
        }
    }

    fn gateway(&self, release: Release) -> Gateway {
        self.cluster.start_gateway_with(self.command(release, Binary::Server), Options::default())
    }

    fn worker(&self, release: Release, id: &str, tags: &str, flags: &[&str]) -> Worker {
        let options = with_flags(&["--tags", tags, "--concurrency", "4", "--flow-resolver", &self.resolver]);
        let options = options.python(V08).flags(flags);
        self.cluster.start_worker_with(self.command(release, Binary::Worker), id, options)
    }

    fn admin(&self, release: Release, verb: &str) -> Finished {
        let mut command = self.cluster.place(self.command(release, Binary::Admin));
        let finished = run(command.arg(verb), b"", PATIENCE);
        assert_eq!(finished.code, Some(0), "{verb} of {release:?}: {finished:?}");
        finished
    }

    /// Nothing that `doctor` of this release finds is an error.
    fn assert_well(&self) {
        let report = self.admin(This, "doctor").stdout;
        let lines = report.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        assert!(lines.clone().count() > 8, "{report}");
        lines.for_each(|line| assert_eq!(line["ok"], true, "{report}"));
    }

    /// All streams of before are there, with the settings that they had; this release marks whose they are.
    fn assert_has(&self, before: &Value) {
        let mut after = self.resources();
        for (name, stream) in before.as_object().unwrap() {
            let metadata = after[name]["metadata"].as_object_mut().unwrap();
            metadata.retain(|key, _| !key.starts_with("pyoco_") || !stream["metadata"][key].is_null());
            assert_eq!(&after[name], stream, "{name}");
        }
    }

    /// The settings of all streams, those of buckets too.
    fn resources(&self) -> Value {
        let page = jetstream::call(&self.cluster.nats, "STREAM.LIST", &Value::Null);
        let streams =
            page["streams"].as_array().unwrap().iter().map(|stream| {
                (stream["config"]["name"].as_str().unwrap().to_owned(), stream["config"].clone())
            });
        streams.collect::<serde_json::Map<String, Value>>().into()
    }
}
