//! A nats-server, a gateway and a worker for the measurements, gone when the program ends.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use pyoco_server::bus::Bus;
use pyoco_server::cli::server::nats_child::{NatsChild, NatsChildSettings};
use pyoco_server::config::{Config, Source};
use pyoco_server::flow::{Executor, NativeExecutor, Registry};
use pyoco_server::gateway::{GatewaySettings, Lang, RunningGateway};
use pyoco_server::thread::{self, JoinOnDrop, StopSource};
use pyoco_server::worker::{self, WheelSyncSettings, WorkerSettings};

type Error = Box<dyn std::error::Error>;

/// Everything that is measured against. Field order is the shutdown order.
pub struct Setup {
    pub bus: Bus,
    pub config: Config,
    pub sync: String,
    nats: NatsChild,
    _store: tempfile::TempDir,
}

impl Setup {
    pub fn start() -> Result<Setup, Error> {
        let sync = std::env::var("BENCH_SYNC").unwrap_or_else(|_| "2m".to_owned());
        let store = tempfile::tempdir()?;
        let nats = NatsChild::start(NatsChildSettings {
            bin: None,
            listen_host: "127.0.0.1".parse()?,
            client_port: free_port()?,
            http_port: None,
            store_dir: store.path().to_owned(),
            sync_interval: sync.clone(),
        })?;
        let mut config = Config::load(&Source::default()).config;
        config.nats.url = nats.url();
        let bus = Bus::start(&config.nats, &config.resources)?;
        if !bus.wait_connected(Duration::from_secs(10)) {
            return Err("no connection to the nats-server".into());
        }
        bus.ensure_resources()?;
        Ok(Setup { bus, config, sync, nats, _store: store })
    }

    pub fn server_version(&self) -> String {
        self.bus.state().server
    }

    pub fn url(&self) -> String {
        self.nats.url()
    }

    pub fn gateway(&self) -> Result<RunningGateway, Error> {
        let settings = GatewaySettings {
            default_tag: "default".to_owned(),
            max_workflow_bytes: self.config.run.max_workflow_bytes,
            max_wheel_bytes: u64::try_from(self.config.resources.wheels_max_bytes).unwrap_or(0),
            wheel_history_kept: self.config.resources.wheel_history_ttl,
            disconnect_timeout: self.config.registry.disconnect_timeout,
            worker_heartbeat: self.config.registry.heartbeat_interval,
            cancel_grace: self.config.run.cancel_grace_period,
            threads: 16,
            workers_retention: self.config.registry.retention,
            max_watchers: 64,
            trusted_proxies: None,
            api_key_header: self.config.http.api_key_header.clone(),
            dashboard_lang: Lang::En,
            auth: None,
        };
        Ok(RunningGateway::start("127.0.0.1:0".parse()?, &self.bus, settings)?)
    }

    pub fn worker(&self, concurrency: usize) -> Result<(StopSource, JoinOnDrop), Error> {
        let native = Arc::new(NativeExecutor::new(Registry::with_builtins()));
        self.worker_with(concurrency, native, None)
    }

    pub fn worker_with(
        &self,
        concurrency: usize,
        executor: Arc<dyn Executor>,
        wheels: Option<WheelSyncSettings>,
    ) -> Result<(StopSource, JoinOnDrop), Error> {
        let settings = WorkerSettings {
            worker_id: "bench".to_owned(),
            tags: vec!["default".to_owned()],
            concurrency,
            drain_timeout: Duration::from_secs(5),
            run_once: None,
            run: self.config.run.clone(),
            registry: self.config.registry.clone(),
            wheels,
        };
        let bus = Bus::start(&self.config.nats, &self.config.resources)?;
        let (stop, stopped) = thread::stop_channel();
        let body = move || {
            if let Err(e) = worker::run(settings, &bus, vec![executor], &stopped) {
                eprintln!("the worker has ended: {e}");
            }
        };
        Ok((stop, thread::spawn("bench-worker", body)?))
    }
}

fn free_port() -> Result<u16, Error> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
