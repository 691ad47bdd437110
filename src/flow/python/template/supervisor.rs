//! One worker's Python: its settings, and the template that is in use now.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::never;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::Template;
use super::ending::EndingTemplates;
use crate::flow::python::{Code, PythonError, PythonSettings};
use crate::thread::StopSignal;

/// Starts a template when one is needed and there is none that lives, or when there is new code.
///
/// Locks are taken in the order of the fields. While one is held, nothing is dropped that could be the
/// last to hold some code: what goes with that is not ours.
#[derive(Debug)]
pub(crate) struct TemplateSupervisor {
    pub(crate) settings: PythonSettings,
    /// How long a run goes on without a sign of life of this process.
    pub(crate) lease: Duration,
    /// Held while new code is tried out.
    turn: Mutex<()>,
    /// Held while a template starts that runs wait for.
    state: Mutex<CurrentTemplate>,
    /// Apart from `state`, so that the worker's record can be written while a template starts.
    report: Mutex<Report>,
    /// Joined last, when the template has been dropped.
    ending_templates: Arc<EndingTemplates>,
}

#[derive(Debug, Default)]
struct CurrentTemplate {
    code: Option<Arc<Code>>,
    template: Option<Arc<Template>>,
    /// The last start, if it failed, and when that was.
    failure: Option<(Instant, PythonError)>,
}

#[derive(Debug, Default, Clone)]
struct Report {
    template: Option<Weak<Template>>,
    starts: u64,
    last_error: Option<String>,
    generation: Option<String>,
    /// Templates before this one, some of which still have runs.
    older: Vec<Weak<Template>>,
}

impl TemplateSupervisor {
    pub(crate) fn new(settings: PythonSettings, lease: Duration) -> Self {
        TemplateSupervisor {
            settings,
            lease,
            turn: Mutex::default(),
            state: Mutex::default(),
            report: Mutex::default(),
            ending_templates: Arc::default(),
        }
    }

    /// The template, started if need be. Others who ask meanwhile wait for the same start, and fail with it.
    pub(crate) fn template(&self) -> Result<Arc<Template>, PythonError> {
        let asked = Instant::now();
        let mut state = self.state.lock();
        if let Some(template) = state.template.as_ref().filter(|template| template.is_alive()) {
            return Ok(Arc::clone(template));
        }
        if let Some((_, error)) = state.failure.as_ref().filter(|(at, _)| *at > asked) {
            return Err(error.clone());
        }
        let was_there = state.template.take().is_some();
        let code = state.code.as_ref();
        let started = Template::start(&self.settings, code, &self.ending_templates, &never());
        match started.map(Arc::new) {
            Ok(template) => {
                self.report_start(&template, was_there);
                state.template = Some(Arc::clone(&template));
                Ok(template)
            }
            Err(error) => {
                let mut report = self.report.lock();
                report.template = None;
                report.last_error = Some(error.to_string());
                state.failure = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    pub(crate) fn use_code(&self, code: Arc<Code>, stop: &StopSignal) -> Result<(), PythonError> {
        let turn = self.turn.lock();
        // Without the lock of the state, so that runs get the present template meanwhile.
        let template = Template::start(&self.settings, Some(&code), &self.ending_templates, stop)?;
        let template = Arc::new(template);
        let mut state = self.state.lock();
        self.report_start(&template, state.template.is_some());
        let new = CurrentTemplate { code: Some(code), template: Some(template), failure: None };
        let old = std::mem::replace(&mut *state, new);
        drop((state, turn));
        drop(old);
        Ok(())
    }

    fn report_start(&self, template: &Arc<Template>, was_there: bool) {
        let generation = template.wheels().map(|set| set.generation.clone());
        log::info!(pid = template.pid, python = template.python.as_str(),
            pyoco = template.pyoco.as_deref().unwrap_or("unknown"), again = was_there,
            generation = generation.as_deref().unwrap_or_default();
            "Python template process started");
        let mut report = self.report.lock();
        report.starts += 1;
        report.last_error = None;
        report.generation = generation;
        let old = report.template.replace(Arc::downgrade(template));
        report.older.retain(|template| template.strong_count() > 0);
        report.older.extend(old);
    }

    pub(crate) fn status(&self) -> Value {
        let report = self.report.lock().clone();
        let template = report.template.and_then(|template| template.upgrade());
        let alive = template.as_ref().filter(|template| template.is_alive());
        let state = match (alive, &report.last_error, report.starts) {
            (Some(_), ..) => "ready",
            (None, None, 0) => "not_started",
            (None, None, _) => "died",
            (None, Some(_), _) => "failed",
        };
        let mut status = json!({
            "state": state,
            "python": template.as_ref().map(|template| &template.python),
            "pyoco": template.as_ref().map(|template| &template.pyoco),
            "pid": alive.map(|template| template.pid),
            "starts": report.starts,
            "last_error": report.last_error,
        });
        if let Some(generation) = report.generation {
            let is_used = |template: &&Weak<Template>| template.strong_count() > 0;
            status["generation"] = generation.into();
            status["older_templates"] = report.older.iter().filter(is_used).count().into();
        }
        status
    }
}
