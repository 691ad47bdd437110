//! A reader of the log that does not read: nothing but log lines may be lost by that.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::time::Duration;

use serde_json::json;

use crate::support::cluster::Cluster;
use crate::support::http::{Client, Connection};
use crate::support::nats;
use crate::support::port::PortLease;
use crate::support::process::{Binary, Running, Unread, run, without_settings};
use crate::support::python::V08;
use crate::support::wait::{PATIENCE, eventually};

/// The end of a program that was asked to stop, with time for a slow machine.
const END: Duration = Duration::from_secs(20);

/// A user of whom nothing else runs here, so that a limit of processes counts ours alone.
const NOBODY_ELSE: u32 = 61_351;

/// A program with a gateway whose log nobody reads.
fn start(cluster: &Cluster, args: &[&str]) -> (Running, Unread, Client, PortLease) {
    let port = PortLease::take();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.port()));
    let mut command = cluster.place(Binary::Server.command());
    command.args(["up", "--log-level", "debug", "--port", &port.port().to_string()]).args(args);
    command.env("PYOCO_PYTHON", V08.path()).env("PYOCO_NATS_SERVER_BIN", nats::binary());
    let (mut running, unread) = Running::start_unread(&mut command);
    running.wait_for_port(address, PATIENCE);
    let client = Client::to(address);
    client.wait_ready();
    (running, unread, client, port)
}

#[test]
fn thousands_of_requests_go_on_and_the_log_says_how_many_lines_are_missing() {
    let cluster = Cluster::new().start();
    let (mut gateway, mut unread, client, _port) = start(&cluster, &["--nats-url", &cluster.nats.url()]);
    let mut connection = Connection::open(client.address);
    let mut count = 0;
    eventually(PATIENCE, "a dropped line", || {
        for _ in 0..500 {
            let request = b"GET /runs?limit=1 HTTP/1.1\r\nHost: gateway\r\n\r\n";
            connection.send(request).unwrap();
            assert_eq!(connection.receive().unwrap().status, 200);
            count += 1;
        }
        (client.metric("pyoco_log_lines_dropped_total") > 1000.0).then_some(())
    });
    assert!(count > 2000, "{count}");
    (0..20).for_each(|_| drop(client.submit(&json!({"flow_name": "main"}))));
    // A request that is malformed writes lines of its own.
    assert_eq!(client.get("/runs/%FF").status / 100, 4);

    unread.read(&mut gateway);
    let line = gateway.wait_for_line(PATIENCE, "the count", |line| line.contains("log lines were dropped"));
    let told: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&told["level"], &told["logger"]), (&json!("WARNING"), &json!("pyoco_server::logging")));
    // From here on the log is complete again, to the last line.
    let run_id = client.submit(&json!({"flow_name": "main"}));
    gateway.wait_for_line(PATIENCE, "the submit", |line| line.contains(&run_id));
    assert!(told["lines"].as_f64().unwrap() >= 1000.0, "{line}");
    assert_eq!(told["lines"].as_f64().unwrap(), client.metric("pyoco_log_lines_dropped_total"), "{line}");
    assert_eq!(gateway.stop(END).code(), Some(0));
}

#[test]
fn a_whole_installation_executes_runs_while_nobody_reads_its_log() {
    let cluster = Cluster::new().start();
    let flows = cluster.write(
        "flows.py",
        "import sys\n\
         from pyoco import Flow, task\n\
         @task\n\
         def noisy(ctx):\n    print('inside')\n    return 'done'\n\
         def resolve(name):\n    print('outside', 'x' * 3000)\n    print('error', file=sys.stderr)\n    \
         flow = Flow(name='noisy')\n    flow >> noisy\n    return flow\n",
    );
    let nats_port = PortLease::take();
    let (mut all, _unread, client, _port) = start(
        &cluster,
        &[
            "--with-nats",
            "--nats-client-port",
            &nats_port.port().to_string(),
            "--nats-store-dir",
            cluster.folder().join("store").to_str().unwrap(),
            "--with-worker",
            "--worker-flow-resolver",
            &format!("{flows}:resolve"),
        ],
    );
    let runs: Vec<String> = (0..20).map(|_| client.submit_flow("default", "noisy", json!({}))).collect();
    runs.iter().for_each(|run_id| drop(client.ended_as(run_id, "COMPLETED")));
    assert_eq!(all.stop(END).code(), Some(0));
}

#[test]
fn a_program_ends_though_nobody_reads_its_log() {
    let cluster = Cluster::new().start();
    let worker = |args: &[&str]| {
        let mut command = cluster.place(Binary::Worker.command());
        command.args(["--nats-url", &cluster.nats.url(), "--worker-id", "unread"]).args(args);
        Running::start_unread(&mut command)
    };
    // An error that ends it at once: the message does not wait for a reader either.
    let (mut wrong, mut unread) = worker(&["--python", "off", "--flow-resolver", "flows:resolve"]);
    assert_eq!(wrong.wait(END).code(), Some(1));
    unread.read(&mut wrong);

    let (mut busy, _unread) = worker(&["--python", V08.path().to_str().unwrap()]);
    let pid = busy.pid();
    cluster.wait_record("unread", "is there", |record| record["pid"] == pid);
    let yaml = "flow: {graph: wait}\ntasks: {wait: {use: builtin/sleep, inputs: {seconds: 60}}}\n";
    let run_id = cluster.queue_yaml("default", yaml);
    cluster.wait_stored(&run_id, "RUNNING");
    // The first signal begins the drain, and the second one ends that. Two that come together count once.
    eventually(END, "the end after a second signal", || {
        if busy.is_running() {
            busy.terminate();
        }
        (!busy.is_running()).then_some(())
    });
    assert_eq!(busy.wait(END).code(), Some(128 + 15));
}

#[test]
fn the_last_lines_of_a_program_reach_a_reader() {
    let cluster = Cluster::new().start();
    let mut command = cluster.place(Binary::Server.command());
    command.args(["up", "--host", "0.0.0.0", "--nats-url", &cluster.nats.url(), "--log-level", "no-level"]);
    let ended = crate::support::process::run(&mut command, b"", END);
    assert_eq!(ended.code, Some(1));
    let lines: Vec<&str> = ended.stderr.lines().collect();
    assert!(lines[0].contains("PYOCO_LOG_LEVEL is not a level"), "{lines:?}");
    assert!(lines[1].starts_with("ERR-PYOCO-") && lines.last().unwrap().starts_with("- hint: "), "{lines:?}");
}

#[test]
fn a_program_without_a_thread_for_its_log_still_says_why_it_ends() {
    for program in [Binary::Server, Binary::Worker] {
        let mut command = without_settings("bash");
        command.args(["-c", "ulimit -u 1; exec \"$0\" \"$@\"", program.path()]).current_dir("/");
        command.env("PYOCO_PYTHON", "off");
        if rustix::process::getuid().is_root() {
            // The limit does not bind root.
            command.uid(NOBODY_ELSE);
        }
        let ended = run(&mut command, b"", END);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        for word in ["cannot start the thread that writes log lines", "cannot watch for signals", "ulimit -u"]
        {
            assert!(ended.stderr.contains(word), "no `{word}` in {ended:?}");
        }
    }
}
