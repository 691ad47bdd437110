//! Workers and gateways on a lab: as processes, and inside of the test.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use pyoco_server::bus::Bus;
use pyoco_server::flow::{Executor, NativeExecutor, Registry};
use pyoco_server::thread::{StopSource, stop_channel};
use pyoco_server::worker::{self, WorkerSettings};

use crate::lab::Lab;
use crate::support::http;
use crate::support::port::PortLease;
use crate::support::process::{Binary, Running};
use crate::support::wait::{PATIENCE, eventually};

/// Starts `pyoco-worker` under an id, and waits until it has registered.
pub fn process(lab: &Lab, worker_id: &str, flags: &[&str]) -> Running {
    process_with(lab, worker_id, flags, &[])
}

/// The same with further environment.
pub fn process_with(lab: &Lab, worker_id: &str, flags: &[&str], env: &[(&str, &str)]) -> Running {
    let running = spawn(lab, worker_id, flags, env);
    let pid = running.pid();
    lab.wait_record(worker_id, "is there", |record| record["pid"] == pid);
    running
}

/// Starts `pyoco-worker` and does not wait for anything.
pub fn spawn(lab: &Lab, worker_id: &str, flags: &[&str], env: &[(&str, &str)]) -> Running {
    let mut command = Binary::Worker.command();
    command.args(["--worker-id", worker_id]).args(flags);
    command.envs(lab.env.iter().cloned()).envs(env.iter().copied());
    Running::start(&mut command)
}

/// A gateway process; its port is free again when it is dropped.
pub struct Gateway {
    pub address: SocketAddr,
    _running: Running,
    _port: PortLease,
}

/// Starts `pyoco-server`, and waits until it is ready.
pub fn gateway(lab: &Lab) -> Gateway {
    let port = PortLease::take();
    let address = SocketAddr::from(([127, 0, 0, 1], port.port()));
    let mut command = Binary::Server.command();
    command.args(["up", "--port", &port.port().to_string()]).envs(lab.env.iter().cloned());
    let mut running = Running::start(&mut command);
    running.wait_for_port(address, PATIENCE);
    eventually(PATIENCE, "the gateway is ready", || {
        (http::get(address, "/readyz").status == 200).then_some(())
    });
    Gateway { address, _running: running, _port: port }
}

/// A worker inside of this process, with a bus of its own; stopped when dropped.
pub struct LocalWorker {
    stop: Option<StopSource>,
    thread: Option<JoinHandle<Result<(), worker::Error>>>,
}

impl LocalWorker {
    /// Starts it with the native executor.
    pub fn start(lab: &Lab, worker_id: &str, tags: &[&str], slots: usize, tasks: Registry) -> Self {
        let executor = Arc::new(NativeExecutor::new(tasks));
        Self::start_with(lab, worker_id, tags, slots, executor)
    }

    /// Starts it with another one.
    pub fn start_with(
        lab: &Lab,
        worker_id: &str,
        tags: &[&str],
        slots: usize,
        executor: Arc<dyn Executor>,
    ) -> Self {
        let settings = WorkerSettings {
            worker_id: worker_id.to_owned(),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            concurrency: slots,
            drain_timeout: Duration::from_secs(20),
            run_once: None,
            run: lab.config.run.clone(),
            registry: lab.config.registry.clone(),
            wheels: None,
        };
        let (stop, stopped) = stop_channel();
        let config = lab.config.clone();
        let thread = std::thread::spawn(move || {
            let bus = Bus::start(&config.nats, &config.resources).unwrap();
            worker::run(settings, &bus, vec![executor], &stopped)
        });
        LocalWorker { stop: Some(stop), thread: Some(thread) }
    }

    /// Asks it to stop and waits for its end.
    pub fn stop(mut self) -> Result<(), worker::Error> {
        self.stop.take();
        self.thread.take().expect("it was not stopped").join().expect("the worker has panicked")
    }
}

impl Drop for LocalWorker {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
