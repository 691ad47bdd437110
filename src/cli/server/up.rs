//! `pyoco-server up`: NATS if asked for, the gateway, a worker if asked for; then waits to stop.

use std::net::{SocketAddr, ToSocketAddrs};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;

use super::PROGRAM;
use super::args::Up;
use super::nats_child::{NatsChild, NatsChildSettings};
use super::probe;
use crate::bus::{self, Bus};
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::signals::{self, Hangup};
use crate::cli::{program, worker};
use crate::config::{AuthMode, Config, DashboardLang, Source};
use crate::gateway::auth::hash::Pepper;
use crate::gateway::{AuthSettings, GatewaySettings, Lang, RunningGateway};
use crate::model::error::Code;
use crate::systemd::{self, Loop};
use crate::thread::{self, StopSignal};

/// For requests in flight when the gateway stops.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// Handler threads per CPU: they wait for NATS most of the time.
const THREADS_PER_CPU: usize = 8;

/// How long the start looks whether what is in NATS is its own; the gateway serves meanwhile.
const FIRST_LOOK: Duration = Duration::from_secs(2);
const FIRST_LOOK_STEP: Duration = Duration::from_millis(50);

/// Runs until SIGTERM, Ctrl-C, or the end of the worker. The order of the end: the worker drains
/// while the gateway still answers, then the gateway, then NATS.
pub(super) fn up(args: Up) -> Result<Exit, Failure> {
    let mut config = program::settings("pyoco-server:http", args.log_level.as_deref())?;
    refuse_unclear_auth()?;
    config.http.dashboard_lang = match args.dashboard_lang.as_deref() {
        Some("ja") => DashboardLang::Ja,
        Some("en") => DashboardLang::En,
        Some(_) => DashboardLang::Auto,
        None => config.http.dashboard_lang,
    };
    let address = address(&args)?;
    if config.http.auth_mode == AuthMode::ApiKey && config.auth.pepper.is_none() {
        log::info!("API keys are checked without a pepper; see PYOCO_AUTH_PEPPER");
    }
    if config.http.auth_mode == AuthMode::None && !address.ip().is_loopback() {
        if !(args.allow_unauthenticated || config.http.allow_unauthenticated) {
            return Err(unguarded(address));
        }
        log::warn!(address = address.to_string();
            "the gateway listens beyond this machine and asks nobody for a key");
    }
    let loops: &[Loop] = if args.with_worker {
        &[Loop::Http, Loop::Chores, Loop::Puller]
    } else {
        &[Loop::Http, Loop::Chores]
    };
    systemd::init(loops, |name| std::env::var_os(name));
    let stop = signals::stop_signal(Hangup::Reloads)?;
    let nats = args.with_nats.then(|| start_nats(&args)).transpose()?;
    if let Some(url) = nats.as_ref().map(NatsChild::url).or(args.nats_url) {
        config.nats.url = url;
    }
    let bus = Bus::start(&config.nats, &config.resources)
        .map_err(|e| program::failed(Code::NatsUnavailable, "cannot use the NATS settings", e))?;
    let gateway = RunningGateway::start(address, &bus, gateway_settings(&config, args.behind_proxy))
        .map_err(|e| program::failed(Code::CannotStart, "cannot start the gateway", e))?;
    if let Some(e) = first_look(&bus, &stop) {
        gateway.stop(Duration::ZERO);
        return Err(program::failed(Code::CannotStart, "cannot start the gateway", e));
    }
    let probe = probe::start(gateway.local_addr())
        .map_err(|e| program::failed(Code::CannotStart, "cannot start the gateway", e))?;
    let worker_ended = if args.with_worker {
        let mut settings = worker::settings(&config, args.worker_tags)?;
        config.python.resolver = args.worker_flow_resolver.or(config.python.resolver);
        worker::resolve_paths(&mut config)?;
        worker::require_threads()?;
        let executors = worker::executors(&config, &mut settings)?;
        // A bus of its own, as a worker elsewhere would have.
        let worker_bus = Bus::start(&config.nats, &config.resources)
            .map_err(|e| program::failed(Code::NatsUnavailable, "cannot start the worker", e))?;
        let (sender, ended) = bounded(1);
        let stop = stop.clone();
        let thread = thread::spawn("worker", move || {
            // The receiver waits until this comes, or is gone with the process.
            let _ = sender.send(crate::worker::run(settings, &worker_bus, executors, &stop));
        })
        .map_err(|e| program::failed(Code::CannotStart, "cannot start the worker", e))?;
        Some((ended, thread))
    } else {
        None
    };
    let outcome = match &worker_ended {
        // It ends by the same signal, after it has drained.
        Some((ended, _)) => ended.recv().unwrap_or(Ok(())),
        None => {
            // It never delivers anything; its end is the news.
            let _ = stop.recv();
            Ok(())
        }
    };
    systemd::stopping();
    drop(worker_ended);
    if !gateway.stop(STOP_GRACE) {
        log::warn!("some requests were cut off");
    }
    // After the gateway, which has ended the request that it may wait for.
    drop(probe);
    drop(bus);
    drop(nats);
    outcome.map(|()| Exit::Done).map_err(|e| program::failed(Code::CannotStart, "the worker has ended", e))
}

/// Why the gateway must not run, if NATS says so soon: a chore of the gateway looks again later.
fn first_look(bus: &Bus, stop: &StopSignal) -> Option<bus::Error> {
    let deadline = Instant::now() + FIRST_LOOK;
    while !bus.wait_connected(FIRST_LOOK_STEP) {
        if thread::is_stopped(stop) || Instant::now() >= deadline {
            return None;
        }
    }
    bus.check_ownership(deadline).err()
}

/// The default for a mode that cannot be read would be to let everybody in.
fn refuse_unclear_auth() -> Result<(), Failure> {
    const MODE: &str = "PYOCO_HTTP_AUTH_MODE";
    let warnings = Config::load(&Source::from_process()).warnings;
    if warnings.iter().all(|warning| warning.name != MODE) {
        return Ok(());
    }
    let hint = "set it to `api_key`, or to `none` to let everybody in";
    Err(Failure::usage(format!("cannot read {MODE}, which says who may come in"), None, hint))
}

fn unguarded(address: SocketAddr) -> Failure {
    Failure::usage(
        format!(
            "{address} can be reached from other machines, and PYOCO_HTTP_AUTH_MODE is none: whoever \
             reaches it could have any code executed on the workers"
        ),
        None,
        "set PYOCO_HTTP_AUTH_MODE=api_key, or listen on 127.0.0.1 behind a reverse proxy that asks who \
         comes, or pass --allow-unauthenticated (PYOCO_ALLOW_UNAUTHENTICATED=1)",
    )
}

fn address(args: &Up) -> Result<SocketAddr, Failure> {
    let bad = |reason: String| {
        Failure::usage(reason, None, format!("pass an address with --host; see `{PROGRAM} --help`"))
    };
    (args.host.as_str(), args.port)
        .to_socket_addrs()
        .map_err(|e| bad(format!("cannot resolve --host {}: {e}", args.host)))?
        .next()
        .ok_or_else(|| bad(format!("--host {} has no address", args.host)))
}

fn start_nats(args: &Up) -> Result<NatsChild, Failure> {
    let child = NatsChild::start(NatsChildSettings {
        bin: None,
        listen_host: args.nats_listen_host,
        client_port: args.nats_client_port,
        http_port: args.nats_http_port,
        store_dir: args.nats_store_dir.clone(),
        sync_interval: args.nats_sync_interval.clone(),
    })
    .map_err(|e| program::failed(Code::CannotStart, "cannot start the local NATS", e))?;
    log::info!(url = child.url(), store = args.nats_store_dir.display().to_string();
        "local NATS started");
    Ok(child)
}

fn gateway_settings(config: &Config, behind_proxy: bool) -> GatewaySettings {
    let cpus = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    GatewaySettings {
        default_tag: config.run.default_tag.clone(),
        max_workflow_bytes: config.run.max_workflow_bytes,
        max_wheel_bytes: u64::try_from(config.resources.wheels_max_bytes).unwrap_or(0),
        wheel_history_kept: config.resources.wheel_history_ttl,
        disconnect_timeout: config.registry.disconnect_timeout,
        worker_heartbeat: config.registry.heartbeat_interval,
        cancel_grace: config.run.cancel_grace_period,
        threads: config.http.threads.unwrap_or(cpus * THREADS_PER_CPU),
        workers_retention: config.registry.retention,
        max_watchers: config.http.max_watchers,
        trusted_proxies: behind_proxy.then(|| config.http.trusted_proxies.clone()),
        api_key_header: config.http.api_key_header.clone(),
        auth: (config.http.auth_mode == AuthMode::ApiKey)
            .then(|| AuthSettings { pepper: Pepper::new(config.auth.pepper.clone()) }),
        dashboard_lang: dashboard_lang(config.http.dashboard_lang),
    }
}

/// `auto` is the language of the locale, by the order of POSIX; English when that is another one.
fn dashboard_lang(setting: DashboardLang) -> Lang {
    match setting {
        DashboardLang::Ja => Lang::Ja,
        DashboardLang::En => Lang::En,
        DashboardLang::Auto => ["LC_ALL", "LC_MESSAGES", "LANG"]
            .iter()
            .filter_map(|name| std::env::var(name).ok())
            .find(|locale| !locale.is_empty())
            .and_then(|locale| Lang::from_word(&locale))
            .unwrap_or(Lang::En),
    }
}
