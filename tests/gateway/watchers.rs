//! Many, slow and vanished watchers: none of them costs anybody else anything.

use std::time::{Duration, Instant};

use pyoco_server::model::run::RunStatus;

use crate::metrics::value;
use crate::support::cluster::Cluster;
use crate::support::events::Events;
use crate::support::runs::completed;
use crate::support::wait::{PATIENCE, eventually};

const WATCH: &str = "/runs/r/watch?timeout_sec=600";

fn cluster(watchers: &str) -> Cluster {
    let cluster = Cluster::with_gateway_env(&[("PYOCO_HTTP_MAX_WATCHERS", watchers)]);
    cluster.put_run("r", 1.0, |_| {});
    cluster.wait_count(1);
    cluster
}

fn clients(cluster: &Cluster) -> f64 {
    value(&cluster.get("/metrics").text(), "pyoco_sse_clients")
}

#[test]
fn beyond_the_bound_the_answer_is_503_and_all_else_goes_on() {
    let cluster = cluster("3");
    let mut streams: Vec<Events> = [WATCH, WATCH, "/events"].map(|path| cluster.events(path)).into();
    assert_eq!(clients(&cluster), 3.0);
    for path in [WATCH, "/events"] {
        let refused = cluster.get(path);
        assert_eq!((refused.status, refused.header("retry-after")), (503, Some("5")), "{path}");
        let body = refused.json();
        assert_eq!(body["detail"], "too many watchers");
        assert!(body["hint"].as_str().unwrap().contains("PYOCO_HTTP_MAX_WATCHERS"), "{body}");
    }
    // A long answer needs no place of a watcher.
    cluster.put_run("big", 2.0, |run| drop(run.params.insert("x".into(), "y".repeat(100_000).into())));
    cluster.wait_count(2);
    assert!(cluster.get("/runs?include=full").body.len() > 100_000);
    // A client that vanishes gives its place back within 10 s.
    drop(streams.pop());
    let gone = Instant::now();
    eventually(PATIENCE, "a free place", || (clients(&cluster) == 2.0).then_some(()));
    assert!(gone.elapsed() < Duration::from_secs(10), "took {:?}", gone.elapsed());
    let mut stream = cluster.events(WATCH);
    assert_eq!(stream.event().name, "snapshot");
}

#[test]
fn a_slow_reader_gets_the_latest_state_and_what_it_missed_is_counted() {
    let cluster = cluster("8");
    let mut slow = cluster.events(WATCH);
    let mut quick = cluster.events("/runs/r/watch?timeout_sec=600");
    slow.event();
    quick.event();
    // Far more than the buffers between the gateway and the client hold.
    let text = "x".repeat(200_000);
    let mut written = 0;
    for n in 0..150 {
        written = cluster.put_run("r", 2.0 + f64::from(n), |run| {
            run.status = RunStatus::Running;
            run.params.insert("x".into(), text.as_str().into());
        });
        // Whoever reads loses nothing by the one who does not.
        quick.until(|event| event.id == Some(written));
    }
    eventually(PATIENCE, "skipped states", || {
        (value(&cluster.get("/metrics").text(), "pyoco_sse_dropped_total") > 10.0).then_some(())
    });
    let last = cluster.put_run("r", 1000.0, completed);
    let mut told = 0;
    let newest = slow.until(|event| {
        told += usize::from(event.name == "snapshot");
        event.id == Some(last)
    });
    assert_eq!(newest.data["snapshot"]["status"], "COMPLETED");
    assert!(told < 150 && last > written, "all of {told} were queued");
}

#[test]
fn streams_end_properly_when_the_gateway_stops() {
    let mut cluster = cluster("8");
    let mut streams = [WATCH, "/events"].map(|path| cluster.events(path));
    streams.iter_mut().for_each(|stream| drop(stream.event()));
    cluster.gateways[0].process.terminate();
    let begun = Instant::now();
    for stream in &mut streams {
        // The reader panics when a stream breaks off instead.
        stream.rest();
    }
    let status = cluster.gateways[0].process.wait(PATIENCE);
    assert!(status.success(), "{status:?}");
    assert!(begun.elapsed() < Duration::from_secs(5), "took {:?}", begun.elapsed());
    assert!(!cluster.gateways[0].process.stderr().contains("cut off"));
}
