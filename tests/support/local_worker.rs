//! A worker inside of the test's own process, for tests whose tasks count, or wait for the test.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use pyoco_server::bus::Bus;
use pyoco_server::config::Config;
use pyoco_server::flow::{Executor, NativeExecutor, Registry};
use pyoco_server::thread::{StopSource, stop_channel};
use pyoco_server::worker::{self, WorkerSettings};

use super::cluster::Cluster;

/// It has a bus of its own, and is stopped when it is dropped.
pub struct LocalWorker {
    stop: Option<StopSource>,
    thread: Option<JoinHandle<Result<(), worker::Error>>>,
}

impl Cluster {
    /// Starts a worker in this process with native tasks.
    pub fn local_worker(&self, worker_id: &str, tags: &[&str], slots: usize, tasks: Registry) -> LocalWorker {
        self.local_worker_with(worker_id, tags, slots, Arc::new(NativeExecutor::new(tasks)))
    }

    /// The same with another executor.
    pub fn local_worker_with(
        &self,
        worker_id: &str,
        tags: &[&str],
        slots: usize,
        executor: Arc<dyn Executor>,
    ) -> LocalWorker {
        LocalWorker::start(&self.config, worker_id, tags, slots, executor)
    }
}

impl LocalWorker {
    /// Starts one without a cluster of this process.
    pub fn start(
        config: &Config,
        worker_id: &str,
        tags: &[&str],
        slots: usize,
        executor: Arc<dyn Executor>,
    ) -> LocalWorker {
        let config = config.clone();
        let settings = WorkerSettings {
            worker_id: worker_id.to_owned(),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            concurrency: slots,
            drain_timeout: Duration::from_secs(20),
            run_once: None,
            run: config.run.clone(),
            registry: config.registry.clone(),
            wheels: None,
        };
        let (stop, stopped) = stop_channel();
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
