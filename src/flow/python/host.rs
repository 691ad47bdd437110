//! One worker's Python: its settings, and the template that is in use now.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde_json::{Value, json};

use super::template::Template;
use super::{PythonError, PythonSettings};

/// Starts a template when one is needed and there is none that lives.
#[derive(Debug)]
pub(super) struct Host {
    settings: PythonSettings,
    state: Mutex<State>,
    /// Apart from `state`, so that the worker's record can be written while a template starts.
    report: Mutex<Report>,
}

#[derive(Debug, Default)]
struct State {
    template: Option<Arc<Template>>,
    /// The last start, if it failed, and when that was.
    failure: Option<(Instant, PythonError)>,
}

#[derive(Debug, Default, Clone)]
struct Report {
    template: Option<std::sync::Weak<Template>>,
    starts: u64,
    last_error: Option<String>,
}

impl Host {
    pub(super) fn new(settings: PythonSettings) -> Self {
        Host { settings, state: Mutex::default(), report: Mutex::default() }
    }

    pub(super) fn settings(&self) -> &PythonSettings {
        &self.settings
    }

    /// The template, started if need be. Others who ask meanwhile wait for the same start, and fail
    /// with it.
    pub(super) fn template(&self) -> Result<Arc<Template>, PythonError> {
        let asked = Instant::now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(template) = state.template.as_ref().filter(|template| template.is_alive()) {
            return Ok(Arc::clone(template));
        }
        if let Some((_, error)) = state.failure.as_ref().filter(|(at, _)| *at > asked) {
            return Err(error.clone());
        }
        let was_there = state.template.take().is_some();
        let started = Template::start(&self.settings).map(Arc::new);
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        match &started {
            Ok(template) => {
                report.starts += 1;
                report.last_error = None;
                report.template = Some(Arc::downgrade(template));
                log::info!(pid = template.pid, python = template.python.as_str(),
                    pyoco = template.pyoco.as_deref().unwrap_or("unknown"), again = was_there;
                    "Python template process started");
                state.template = Some(Arc::clone(template));
            }
            Err(error) => {
                report.template = None;
                report.last_error = Some(error.to_string());
                state.failure = Some((Instant::now(), error.clone()));
            }
        }
        started
    }

    /// For the worker's record.
    pub(super) fn status(&self) -> Value {
        let report = self.report.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let template = report.template.and_then(|template| template.upgrade());
        let alive = template.as_ref().filter(|template| template.is_alive());
        let state = match (alive, &report.last_error, report.starts) {
            (Some(_), ..) => "ready",
            (None, None, 0) => "not_started",
            (None, None, _) => "died",
            (None, Some(_), _) => "failed",
        };
        json!({
            "state": state,
            "python": template.as_ref().map(|template| &template.python),
            "pyoco": template.as_ref().map(|template| &template.pyoco),
            "pid": alive.map(|template| template.pid),
            "starts": report.starts,
            "last_error": report.last_error,
        })
    }
}
