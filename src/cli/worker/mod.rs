//! `pyoco-worker`: pulls jobs by tag and executes them.

pub mod args;

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use args::Args;
use crossbeam_channel::never;

use super::exit::Exit;
use super::failure::Failure;
use super::program;
use super::signals::{self, Hangup};
use crate::bus::Bus;
use crate::config::Config;
use crate::flow::python::{PythonError, find_program, visible_environment};
use crate::flow::{Executor, NativeExecutor, PythonExecutor, PythonSettings, Registry};
use crate::model::error::Code;
use crate::model::name;
use crate::systemd::{self, Loop};
use crate::worker::wheels::Python;
use crate::worker::{self, WheelSyncSettings, WorkerSettings};

/// From the start of a Python template to its word that it is ready; importing the modules of a
/// resolver may take long.
const TEMPLATE_START_DEADLINE: Duration = Duration::from_secs(60);
pub const PROGRAM: &str = "pyoco-worker";
/// How long a stop waits for runs unless a flag says otherwise (`docs/contract.md#command-lines`).
const DEFAULT_DRAIN: Duration = Duration::from_secs(30);

pub fn main(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    program::run(PROGRAM, arguments, start)
}

fn start(args: Args) -> Result<Exit, Failure> {
    let mut config = program::settings("pyoco-server:worker", args.log_level.as_deref())?;
    if let Some(url) = args.nats_url {
        config.nats.url = url;
    }
    config.python.interpreter = args.python.unwrap_or(config.python.interpreter);
    config.python.resolver = args.flow_resolver.or(config.python.resolver);
    config.python.memory_limit = args.run_memory_limit.or(config.python.memory_limit);
    if !args.run_env.is_empty() {
        config.python.env = args.run_env;
    }
    config.run.timeout = args.run_timeout_sec.or(config.run.timeout);
    config.wheels.sync_enabled |= args.wheel_sync;
    config.wheels.sync_enabled &= !args.no_wheel_sync;
    config.wheels.sync_dir = args.wheel_sync_dir.unwrap_or(config.wheels.sync_dir);
    config.wheels.sync_interval = args.wheel_sync_interval_sec.unwrap_or(config.wheels.sync_interval);
    config.wheels.install_timeout = args.wheel_install_timeout_sec.unwrap_or(config.wheels.install_timeout);
    let mut settings = settings(&config, args.tags)?;
    if let Some(worker_id) = args.worker_id {
        settings.worker_id = worker_id;
    }
    if !name::is_key(&settings.worker_id) {
        return Err(usage(format!("--worker-id `{}` cannot be a key", settings.worker_id)));
    }
    if let Some(concurrency) = args.concurrency {
        settings.concurrency = concurrency.get();
    }
    settings.drain_timeout = seconds(args.drain_timeout_sec, "--drain-timeout-sec")?;
    if args.run_once {
        settings.run_once = Some(seconds(args.poll_timeout, "--poll-timeout")?);
    }
    resolve_paths(&mut config)?;
    systemd::init(&[Loop::Puller], |name| std::env::var_os(name));
    let stop = signals::stop_signal(Hangup::Stops)?;
    require_threads()?;
    let executors = executors(&config, &mut settings)?;
    let bus = Bus::start(&config.nats, &config.resources)
        .map_err(|e| program::failed(Code::NatsUnavailable, "cannot use the NATS settings", e))?;
    worker::run(settings, &bus, executors, &stop)
        .map(|()| Exit::Done)
        .map_err(|e| program::failed(Code::CannotStart, "the worker has ended", e))
}

/// Fails before NATS is dialled, whose client cannot do with less.
pub(super) fn require_threads() -> Result<(), Failure> {
    worker::require_threads().map_err(|e| program::failed(Code::CannotStart, "cannot start the worker", e))
}

/// What the settings alone say of a worker that serves `tags`, or the default one.
pub(super) fn settings(config: &Config, mut tags: Vec<String>) -> Result<WorkerSettings, Failure> {
    if tags.is_empty() {
        tags.push(config.run.default_tag.clone());
    }
    let mut unique: Vec<String> = Vec::new();
    for tag in tags.iter().map(|tag| tag.trim()) {
        if !name::is_tag(tag) {
            return Err(usage(format!("`{tag}` is no tag; it must match {}", name::TAG_PATTERN)));
        }
        if !unique.iter().any(|known| known == tag) {
            unique.push(tag.to_owned());
        }
    }
    let cpus = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let host = name::sanitize(&worker::hostname());
    Ok(WorkerSettings {
        worker_id: format!("{host}-{}", std::process::id()),
        tags: unique,
        concurrency: config.worker_concurrency.unwrap_or(cpus),
        drain_timeout: DEFAULT_DRAIN,
        run_once: None,
        run: config.run.clone(),
        registry: config.registry.clone(),
        wheels: None,
    })
}

/// Makes every path of a worker absolute, once: the directory in which it was given may go, and not every
/// program of ours is started there.
pub(super) fn resolve_paths(config: &mut Config) -> Result<(), Failure> {
    let gone = |e: std::io::Error| {
        let hint = "start the worker in a directory that is there, or give it whole paths";
        Failure::usage(
            format!("cannot resolve a path: the working directory cannot be used: {e}"),
            None,
            hint,
        )
    };
    let python = &mut config.python;
    if !python.is_off() {
        python.interpreter = resolved_program(&python.interpreter).map_err(gone)?;
        if python.interpreter.contains('/') && find_program(&python.interpreter, None).is_none() {
            let reason = format!("there is no program {}", python.interpreter);
            let hint = "--python or PYOCO_PYTHON names the Python that executes flows, or is `off`";
            return Err(Failure::usage(reason, None, hint));
        }
    }
    if let Some((place, function)) = python.resolver.as_deref().and_then(|text| text.rsplit_once(':'))
        && place.ends_with(".py")
    {
        let place = std::path::absolute(place).map_err(gone)?;
        python.resolver = Some(format!("{}:{function}", place.display()));
    }
    if config.wheels.sync_enabled {
        config.wheels.sync_dir = std::path::absolute(&config.wheels.sync_dir).map_err(gone)?;
    }
    Ok(())
}

/// A program's name stays a name, unless `PATH` leads to it by a relative path.
fn resolved_program(program: &str) -> std::io::Result<String> {
    let found = find_program(program, std::env::var_os("PATH").as_deref());
    let is_relative = found.as_ref().is_some_and(|found| found.is_relative());
    let path = match found {
        Some(found) if is_relative => found,
        _ if program.contains('/') => program.into(),
        _ => return Ok(program.to_owned()),
    };
    Ok(std::path::absolute(path)?.display().to_string())
}

/// What this program can execute; the first one that accepts a job gets it. With a flow resolver
/// Python is started now, which takes a moment. Where the worker's code comes as wheels, the first set of
/// them starts it, and `settings` gets the executor for that.
pub(super) fn executors(
    config: &Config,
    settings: &mut WorkerSettings,
) -> Result<Vec<Arc<dyn Executor>>, Failure> {
    // Only names that a flow exposes are ever looked up, and never PYOCO_ ones.
    let native = NativeExecutor::new(Registry::with_builtins())
        .with_environment(|name| std::env::var(name).ok().filter(|_| !systemd::VARIABLES.contains(&name)));
    if config.python.is_off() {
        let needs_python = |what: &str, flags: &str| {
            let hint = format!("leave out one of {flags}");
            Err(Failure::usage(format!("{what}, and Python is off"), None, hint))
        };
        return match (&config.python.resolver, config.wheels.sync_enabled) {
            (None, false) => Ok(vec![Arc::new(native)]),
            (Some(_), _) => needs_python(
                "a flow resolver is given",
                "--flow-resolver and --python off (PYOCO_FLOW_RESOLVER, PYOCO_PYTHON)",
            ),
            (None, true) => needs_python(
                "wheels are to be synchronised",
                "--wheel-sync and --python off (PYOCO_WHEEL_SYNC_ENABLED, PYOCO_PYTHON)",
            ),
        };
    }
    hide_secrets();
    let environment = visible_environment(std::env::vars_os(), |name| config.python.shows(name));
    let python = PythonSettings {
        interpreter: config.python.interpreter.clone(),
        resolver: config.python.resolver.clone(),
        memory_limit: config.python.memory_limit,
        environment: environment.clone(),
        start_deadline: TEMPLATE_START_DEADLINE,
        max_value_bytes: config.run.max_snapshot_bytes,
        term_grace: config.run.term_grace,
    };
    let python = PythonExecutor::with_lease(python, config.run.execution_lease);
    if config.wheels.sync_enabled {
        settings.wheels = Some(WheelSyncSettings {
            dir: config.wheels.sync_dir.clone(),
            interval: config.wheels.sync_interval,
            install_timeout: config.wheels.install_timeout,
            python: Python { program: config.python.interpreter.clone(), environment },
            executor: python.clone(),
        });
    } else if config.python.resolver.is_some() {
        python.warm_up().map_err(|error| {
            let mut hint = "--python or PYOCO_PYTHON names the Python that executes flows";
            if let PythonError::Load { traceback, .. } = &error {
                log::error!("cannot load the flow resolver\n{}", traceback.trim_end());
                hint = "write --flow-resolver module:function or file.py:function; modules are looked for \
                    beside that file, where the worker was started, and in PYTHONPATH";
            }
            Failure::usage(error.to_string(), None, hint)
        })?;
        // One that could execute none of its runs is better not started.
        python.check(&never()).map_err(|error| {
            let hint = "see docs/operations.md#a-worker-that-cannot-work";
            Failure::usage(format!("this worker could not execute flows: {error}"), None, hint)
        })?;
    }
    Ok(vec![Arc::new(native), Arc::new(python)])
}

/// Keeps runs, which belong to the same user, from reading the settings of this process in `/proc`. A
/// user who may do so anyway, such as root, is not kept from it.
fn hide_secrets() {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    if let Err(e) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        log::warn!(error = e.to_string(); "cannot hide this process's environment from flows");
    }
}

fn seconds(value: f64, flag: &str) -> Result<Duration, Failure> {
    Duration::try_from_secs_f64(value)
        .map_err(|_| usage(format!("{flag} must be a number of seconds, 0 or more")))
}

fn usage(reason: String) -> Failure {
    Failure::usage(reason, None, format!("see `{PROGRAM} --help`"))
}
