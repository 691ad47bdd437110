//! What all integration tests share. Nothing here imitates a part of the product: servers are started for
//! real on loopback ports of their own and are gone when the test ends, also when it fails.
//!
//! Each area is one test binary that includes this folder once, in its `main.rs`:
//! `#[path = "../support/mod.rs"] mod support;`. Areas borrow nothing from each other.
//!
//! # A test, from the first line to the last
//!
//! A setting belongs to the part that was named last; before the first part it belongs to all.
//!
//! ```ignore
//! use serde_json::json;
//!
//! use crate::support::cluster::Cluster;
//! use crate::support::python::V08;
//!
//! #[test]
//! fn a_flow_in_python_is_executed_and_its_end_is_shown() {
//!     // NATS, a gateway that asks for keys, and a worker; each is ready when `start` returns.
//!     let mut cluster = Cluster::new()
//!         .with_keys()
//!         .gateway()
//!         .env("PYOCO_LOG_LEVEL", "debug")
//!         .worker("w1")
//!         .python(V08)
//!         .resolver(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/python/flows.py:resolve_flow"))
//!         .start();
//!     // A client of the first gateway, with a key that the gateway knows.
//!     let client = cluster.as_key(&cluster.key_text("team-a", "operator"));
//!     let run_id = client.submit_flow("default", "text", json!({"text": "a b a"}));
//!     // It waits, with a deadline, and fails with the run as it is when another end comes.
//!     let run = client.ended_as(&run_id, "COMPLETED");
//!     assert_eq!(run["task_records"]["common"]["output"]["word"], "a");
//!     // What goes wrong is done to the parts themselves.
//!     cluster.nats.stop();
//!     client.wait_answer("/readyz", 503);
//!     cluster.nats.restart();
//!     cluster.wait_ready();
//!     cluster.worker("w1").kill();
//!     cluster.worker("w1").restart();
//!     // A second gateway on the same NATS, later than the rest.
//!     let second = cluster.another_gateway();
//!     assert_eq!(second.get("/runs").status, 401);
//! }
//! ```
//!
//! # What is where
//!
//! | module | what it does |
//! | --- | --- |
//! | [`cluster`] | `Cluster`: NATS, gateways and workers, started together, stopped and restarted singly |
//! | [`runs`] | submit, wait for a status or the end, snapshots and jobs as they lie in NATS |
//! | [`history`] | all revisions of a run, and what must hold of them |
//! | [`load`] | submits that go on while something is done to the product |
//! | [`http`] | `Client` for everyday requests, `Connection` for raw bytes, `Response` |
//! | [`events`] | reads a stream of server-sent events |
//! | [`forms`] | `multipart/form-data` |
//! | [`keys`] | API keys and the audit through `pyoco-server-admin` |
//! | [`registry`] | wheels of a gateway: upload, list, delete, what a worker has of them |
//! | [`wheel`] | builds wheels, right ones and wrong ones |
//! | [`wheel_sync`] | a worker's folder of wheels in the test's own process |
//! | [`programs`] | `pyoco-client`, ours and that of the Python package |
//! | [`local_worker`] | a worker in the test's own process |
//! | [`flow`] | executes flows through the executor seam, without NATS |
//! | [`python_flows`] | the same for Python flows, and folders of code for them |
//! | [`python`], [`python_environment`] | interpreters with Pyoco, and one that may be spoiled |
//! | [`jetstream`] | JetStream's own API, for what the bus keeps to itself |
//! | [`nats`] | a nats-server with options; stop, kill, pause, restart |
//! | [`nats_cluster`] | several nats-servers as one cluster; kill, freeze, restart a node, find a leader |
//! | [`reverse_proxy`] | nginx, Caddy and HAProxy in front of a gateway |
//! | [`previous`] | the programs of the release before this one |
//! | [`process`] | programs with captured output; signals, exit codes |
//! | [`systemd`] | a stand-in for systemd: what services say to `NOTIFY_SOCKET` |
//! | [`measure`] | threads, memory and descriptors of a process, processes below it |
//! | [`port`], [`wait`] | a port of one's own; `eventually`, the one way to wait |

#![allow(dead_code, reason = "each area uses the part it needs")]

pub mod cluster;
pub mod events;
pub mod flow;
pub mod forms;
pub mod history;
pub mod http;
pub mod jetstream;
pub mod keys;
pub mod load;
pub mod local_worker;
pub mod measure;
pub mod nats;
pub mod nats_cluster;
pub mod port;
pub mod previous;
pub mod process;
pub mod programs;
pub mod python;
pub mod python_environment;
pub mod python_flows;
pub mod registry;
/// Lives with the program that sets real programs under fire.
#[path = "../../examples/chaos/relay.rs"]
pub mod relay;
pub mod reverse_proxy;
pub mod runs;
pub mod systemd;
pub mod wait;
pub mod wheel;
pub mod wheel_sync;
