//! An executor whose flows do what a test tells them: what a worker makes of an executor's reports.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::Sender;
use pyoco_server::flow::{CancelToken, Execution, Executor, FlowEvent, FlowJob, Outcome, StartError};
use pyoco_server::model::clock;
use pyoco_server::model::run::{TaskLogs, TaskRecord, TaskStatus};
use pyoco_server::model::wheel::{WheelRef, WheelSet};
use pyoco_server::thread::StopSignal;
use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::wait::{PATIENCE, eventually};

type Script = dyn Fn(&FlowJob, &Sender<FlowEvent>) + Send + Sync;

/// Executes every job by the same script.
struct Scripted {
    script: Arc<Script>,
    field: Mutex<Option<Value>>,
}

struct Nothing;

impl Execution for Nothing {
    fn kill(&mut self, _mercy: Duration) {}
}

impl Scripted {
    fn new(script: impl Fn(&FlowJob, &Sender<FlowEvent>) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Scripted { script: Arc::new(script), field: Mutex::new(None) })
    }
}

impl Executor for Scripted {
    fn accepts(&self, _job: &FlowJob) -> bool {
        true
    }

    fn start(
        &self,
        job: FlowJob,
        _cancel: CancelToken,
        events: Sender<FlowEvent>,
    ) -> Result<Box<dyn Execution>, StartError> {
        let script = Arc::clone(&self.script);
        std::thread::spawn(move || script(&job, &events));
        Ok(Box::new(Nothing))
    }

    fn record_field(&self) -> Option<(&'static str, Value)> {
        self.field.lock().unwrap().clone().map(|value| ("python", value))
    }
}

/// Executes nothing as long as its machine is broken.
#[derive(Default)]
struct Breakable {
    is_mended: AtomicBool,
    starts: AtomicUsize,
}

impl Executor for Breakable {
    fn accepts(&self, _job: &FlowJob) -> bool {
        true
    }

    fn start(
        &self,
        _job: FlowJob,
        _cancel: CancelToken,
        events: Sender<FlowEvent>,
    ) -> Result<Box<dyn Execution>, StartError> {
        self.starts.fetch_add(1, Ordering::SeqCst);
        let stopped = pyoco_server::thread::stop_channel().1;
        self.check(&stopped).map_err(StartError::Host)?;
        begin(&events, &["a"]);
        events.send(FlowEvent::Finished(Outcome::Completed)).unwrap();
        Ok(Box::new(Nothing))
    }

    fn check(&self, _stop: &StopSignal) -> Result<(), String> {
        match self.is_mended.load(Ordering::SeqCst) {
            true => Ok(()),
            false => Err("the disk is on fire".to_owned()),
        }
    }
}

#[test]
fn a_fault_of_the_host_fails_no_run_and_stops_the_worker_from_taking_more() {
    let cluster = Cluster::new().quick().start();
    let executor = Arc::new(Breakable::default());
    let _worker = cluster.local_worker_with("w1", &["default"], 2, executor.clone());
    let runs: Vec<String> = (0..8).map(|_| cluster.queue("default", "any", json!({}))).collect();
    let record = cluster.wait_record("w1", "unavailable", |record| record["unavailable_reason"].is_string());
    assert_eq!(record["unavailable_reason"], "the disk is on fire");
    assert!((1..=2).contains(&executor.starts.load(Ordering::SeqCst)));
    // Checks go by, and no run is tried.
    std::thread::sleep(Duration::from_millis(1500));
    assert!(executor.starts.load(Ordering::SeqCst) <= 2);
    executor.is_mended.store(true, Ordering::SeqCst);
    for run_id in &runs {
        cluster.wait_stored_within(Duration::from_secs(20), run_id, "COMPLETED");
    }
    cluster.wait_record("w1", "well", |record| record.get("unavailable_reason").is_none());
}

#[test]
fn a_run_whose_machine_stands_still_again_and_again_ends() {
    let cluster = Cluster::new().quick().envs(&[("PYOCO_CONSUMER_MAX_DELIVER", "3")]).start();
    let starts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&starts);
    let executor = Scripted::new(move |_, events| {
        counted.fetch_add(1, Ordering::SeqCst);
        begin(events, &["a"]);
        events.send(FlowEvent::Finished(Outcome::Interrupted { error: "stood still".into() })).unwrap();
    });
    let _worker = cluster.local_worker_with("w1", &["default"], 1, executor);
    let run_id = cluster.queue("default", "any", json!({}));
    let ended = cluster.wait_stored(&run_id, "FAILED");
    assert!(ended["error"].as_str().unwrap().starts_with("max_deliver_exceeded"), "{ended}");
    // Some are free, as a suspended machine is no fault of the run.
    assert_eq!((starts.load(Ordering::SeqCst), &ended["lost_attempts"]), (6, &json!(3)), "{ended}");
}

fn tell(events: &Sender<FlowEvent>, name: &str, record: TaskRecord) {
    events.send(FlowEvent::Task { name: name.to_owned(), record }).unwrap();
}

fn begin(events: &Sender<FlowEvent>, tasks: &[&str]) {
    let tasks = tasks.iter().map(|task| (*task).to_owned()).collect();
    events.send(FlowEvent::Started { flow_name: "scripted".into(), tasks }).unwrap();
}

fn printed(text: String) -> TaskRecord {
    let mut record = TaskRecord::new(TaskStatus::Succeeded);
    record.logs = Some(TaskLogs { stdout: text, stderr: String::new(), dropped_bytes: 0 });
    record
}

#[test]
fn what_an_executor_says_of_itself_is_in_the_workers_record_soon() {
    // So long that nothing but the change can be the reason of a write.
    let cluster = Cluster::new().quick().envs(&[("PYOCO_WORKER_HEARTBEAT_INTERVAL_SEC", "600")]).start();
    let executor = Scripted::new(|_, _| {});
    let worker = cluster.local_worker_with("w1", &["default"], 1, executor.clone());
    let first = cluster.wait_record("w1", "nothing is said", |_| true);
    assert!(first.get("python").is_none(), "{first}");
    for value in [json!({"state": "not_started"}), json!({"state": "ready", "pid": 123})] {
        *executor.field.lock().unwrap() = Some(value.clone());
        let record = cluster.wait_record("w1", "it is said", |record| record["python"] == value);
        assert_eq!(record["state"], "IDLE");
    }
    *executor.field.lock().unwrap() = None;
    cluster.wait_record("w1", "it is taken back", |record| record.get("python").is_none());
    *executor.field.lock().unwrap() = Some(json!({"state": "failed"}));
    worker.stop().unwrap();
    let last = cluster.record("w1").unwrap();
    assert_eq!(last["python"], json!({"state": "failed"}));
    assert_eq!(last["state"], "STOPPED_GRACEFUL");
}

#[test]
fn what_tasks_print_is_shown_and_left_out_before_their_records() {
    let cluster = Cluster::new().quick().envs(&[("PYOCO_MAX_RUN_SNAPSHOT_BYTES", "32768")]).start();
    let executor = Scripted::new(|job, events| {
        begin(events, &["a", "b", "c"]);
        let printed_bytes = job.params["bytes"].as_u64().unwrap() as usize;
        for (task, letter) in [("a", "é"), ("b", "b"), ("c", "c")] {
            tell(events, task, printed(letter.repeat(printed_bytes)));
        }
        events.send(FlowEvent::Finished(Outcome::Completed)).unwrap();
    });
    let _worker = cluster.local_worker_with("w1", &["default"], 1, executor);
    let small = cluster.queue("default", "any", json!({"bytes": 1000}));
    let history = cluster.settled(&small, "COMPLETED");
    let last = history.last();
    assert_eq!(last["task_records"]["a"]["logs"]["stdout"], "é".repeat(1000));
    assert!(last.get("task_logs_truncated").is_none(), "{last}");
    let large = cluster.queue("default", "any", json!({"bytes": 12_000}));
    let history = cluster.settled(&large, "COMPLETED");
    let last = history.last();
    assert_eq!(last["task_logs_truncated"], true);
    assert!(last.get("task_records_truncated").is_none(), "{last}");
    assert!(last["task_records"]["a"].get("logs").is_none(), "the oldest goes first: {last}");
    assert_eq!(last["task_records"]["a"]["state"], "SUCCEEDED");
    assert_eq!(last["task_records"]["c"]["logs"]["stdout"], "c".repeat(12_000));
    let stored = cluster.bus.runs().get(&large).unwrap().unwrap().value;
    assert!(stored.len() <= 32_768, "{} bytes", stored.len());
}

fn wheels(generation: &str, count: usize) -> FlowEvent {
    let wheels = (0..count).map(|n| WheelRef {
        wheel_name: format!("pack{n}-1.{n}-py3-none-any.whl"),
        package_name: format!("pack{n}"),
        package_version: format!("1.{n}"),
        sha256: format!("{n:064x}"),
    });
    FlowEvent::Wheels(WheelSet { generation: generation.into(), wheels: wheels.collect() })
}

#[test]
fn a_snapshot_tells_which_wheels_the_run_has() {
    let cluster = Cluster::new().quick().start();
    let (open, opened) = crossbeam_channel::bounded::<()>(0);
    let executor = Scripted::new(move |job, events| {
        if let Some(count) = job.params.get("wheels").and_then(Value::as_u64) {
            events.send(wheels("0123456789abcdef", count as usize)).unwrap();
            let _ = opened.recv();
        }
        begin(events, &["a"]);
        events.send(FlowEvent::Finished(Outcome::Completed)).unwrap();
    });
    let _worker = cluster.local_worker_with("w1", &["default"], 4, executor);
    let without = cluster.queue("default", "any", json!({}));
    let none = cluster.queue("default", "any", json!({"wheels": 0}));
    let two = cluster.queue("default", "any", json!({"wheels": 2}));
    let many = cluster.queue("default", "any", json!({"wheels": 60}));
    let told = |run_id: &str| {
        eventually(PATIENCE, "the wheels are told", || {
            cluster.stored(run_id).filter(|snapshot| snapshot.get("wheel_generation").is_some())
        })
    };
    for (run_id, listed) in [(&none, 0), (&two, 2), (&many, 50)] {
        let snapshot = told(run_id);
        assert_eq!(snapshot["status"], "RUNNING", "it is told at once: {snapshot}");
        assert_eq!(snapshot["wheel_generation"], "0123456789abcdef");
        assert_eq!(snapshot["wheels"].as_array().map_or(0, Vec::len), listed);
    }
    drop(open);
    for run_id in [&none, &two, &many] {
        assert_eq!(cluster.settled(run_id, "COMPLETED").last()["wheel_generation"], "0123456789abcdef");
    }
    let wheel = json!({"wheel_name": "pack1-1.1-py3-none-any.whl", "package_name": "pack1",
        "package_version": "1.1", "sha256": format!("{:064x}", 1)});
    assert_eq!(cluster.stored(&two).unwrap()["wheels"][1], wheel);
    let history = cluster.settled(&without, "COMPLETED");
    let last = history.last();
    assert!(last.get("wheel_generation").is_none() && last.get("wheels").is_none(), "{last}");
}

#[test]
fn an_executor_that_dies_leaves_failed_tasks_behind() {
    let cluster = Cluster::new().quick().start();
    let executor = Scripted::new(|_, events| {
        begin(events, &["done", "broken", "never"]);
        tell(events, "done", TaskRecord::new(TaskStatus::Succeeded));
        let mut running = TaskRecord::new(TaskStatus::Running);
        running.started_at = Some(clock::now() - 2.0);
        tell(events, "broken", running);
    });
    let _worker = cluster.local_worker_with("w1", &["default"], 1, executor);
    let run_id = cluster.queue("default", "any", json!({}));
    let history = cluster.settled(&run_id, "FAILED");
    let last = history.last();
    assert_eq!(last["error"], "the executor ended without a result");
    let states = json!({"done": "SUCCEEDED", "broken": "FAILED", "never": "CANCELLED"});
    assert_eq!(last["tasks"], states);
    let record = &last["task_records"]["broken"];
    assert_eq!((&record["state"], &record["error"]), (&json!("FAILED"), &last["error"]));
    assert_eq!(record["ended_at"], last["end_time"]);
    assert!(record["duration_ms"].as_f64().unwrap() >= 2000.0, "{record}");
}

#[test]
fn a_run_with_more_tasks_than_a_message_holds_fails_at_once() {
    let cluster = Cluster::new().quick().start();
    let executor = Scripted::new(|job, events| {
        let count = job.params["tasks"].as_u64().unwrap();
        let tasks: Vec<String> =
            (0..count).map(|task| format!("a-task-with-a-long-name-{task:06}")).collect();
        begin(events, &tasks.iter().map(String::as_str).collect::<Vec<_>>());
        // One that goes on is ended, one that has completed could not say so.
        match job.params["ends"] == true {
            true => events.send(FlowEvent::Finished(Outcome::Completed)).unwrap(),
            false => std::thread::sleep(PATIENCE),
        }
    });
    let _worker = cluster.local_worker_with("w1", &["default"], 1, executor);
    for ends in [false, true] {
        let run_id = cluster.queue("default", "any", json!({"tasks": 60_000, "ends": ends}));
        let ended = cluster.wait_stored_within(Duration::from_secs(20), &run_id, "FAILED");
        assert!(ended["error"].as_str().unwrap().starts_with("too_many_tasks: "), "{ended}");
        assert_eq!((&ended["tasks"], &ended["attempt"]), (&json!({}), &json!(1)), "{ended}");
        let counts = ended["task_counts"].as_object().unwrap();
        assert_eq!(counts.values().filter_map(Value::as_u64).sum::<u64>(), 60_000, "{ended}");
    }
    let next = cluster.queue("default", "any", json!({"tasks": 3, "ends": true}));
    cluster.settled(&next, "COMPLETED");
}
