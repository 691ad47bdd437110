//! One worker's Python: its settings, and the template that is in use now.

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::Template;
use super::ending::EndingTemplates;
use super::host;
use super::place::Place;
use crate::flow::executor::StartError;
use crate::flow::python::{Code, PythonError, PythonSettings};
use crate::thread::{self, StopSignal};

/// Between two looks at a stop while another thread starts a template.
const STOP_LOOK: Duration = Duration::from_millis(250);

/// Starts a template when one is needed and there is none that lives, or when there is new code.
///
/// Locks are taken in the order of the fields. While one is held, nothing is dropped that could be the
/// last to hold some code: what goes with that is not ours.
#[derive(Debug)]
pub(crate) struct TemplateSupervisor {
    pub(crate) settings: PythonSettings,
    /// Where the worker was started; `None` when that was gone by then.
    started_in: Option<PathBuf>,
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
            started_in: std::env::current_dir().ok(),
            lease,
            turn: Mutex::default(),
            state: Mutex::default(),
            report: Mutex::default(),
            ending_templates: Arc::default(),
        }
    }

    /// The template, started if need be. Others who ask meanwhile wait for the same start, and fail with it.
    pub(crate) fn template(&self, stop: &StopSignal) -> Result<Arc<Template>, PythonError> {
        let asked = Instant::now();
        let mut state = loop {
            match self.state.try_lock_for(STOP_LOOK) {
                Some(state) => break state,
                None if thread::is_stopped(stop) => return Err(PythonError::Stopped),
                None => {}
            }
        };
        let place = self.place()?;
        let present = state.template.as_ref();
        if let Some(template) = present.filter(|template| template.is_alive() && template.is_in(&place)) {
            return Ok(Arc::clone(template));
        }
        if let Some((_, error)) = state.failure.as_ref().filter(|(at, _)| *at > asked) {
            return Err(error.clone());
        }
        let old = state.template.take();
        let code = state.code.as_ref();
        let started = Template::start(&self.settings, (code, place), &self.ending_templates, stop);
        let result = match started.map(Arc::new) {
            Ok(template) => {
                self.report_start(&template, old.is_some());
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
        };
        drop(state);
        drop(old);
        result
    }

    /// Has the next run start another template; this one ends with its last run.
    pub(crate) fn retire(&self) {
        let old = self.state.lock().template.take();
        drop(old);
    }

    /// Whether flows in Python are this worker's business: it was told which, or has executed some. The
    /// Python that merely happens to be on a machine may lack pyoco.
    pub(crate) fn is_wanted(&self) -> bool {
        let is_told = self.settings.resolver.is_some() || self.settings.interpreter.contains('/');
        let report = self.report.lock();
        is_told || report.starts > 0 || report.generation.is_some()
    }

    /// Whose fault it is that there is no template.
    pub(crate) fn blame(&self, error: &PythonError) -> StartError {
        let text = error.to_string();
        let lacks_python = match error {
            PythonError::NoPyoco { .. } => self.report.lock().starts == 0,
            PythonError::NoInterpreter { is_missing, .. } => *is_missing && !self.is_wanted(),
            _ => false,
        };
        if lacks_python { StartError::Flow(text) } else { StartError::Host(text) }
    }

    /// A quick look at what every run needs, for one that has failed: the flow is not to blame for a disk
    /// without room, or for an interpreter that was removed.
    pub(crate) fn look_at_host(&self) -> Result<(), String> {
        let place = self.place().map_err(|error| error.to_string())?;
        host::look(&place.path, &self.settings)
    }

    fn place(&self) -> Result<Place, PythonError> {
        Place::now(self.started_in.as_deref()).map_err(|e| PythonError::Place {
            folder: self.started_in.clone().unwrap_or_else(|| ".".into()),
            reason: e.to_string(),
        })
    }

    pub(crate) fn use_code(&self, code: Arc<Code>, stop: &StopSignal) -> Result<(), PythonError> {
        let turn = self.turn.lock();
        // Without the lock of the state, so that runs get the present template meanwhile.
        let place = self.place()?;
        let template = Template::start(&self.settings, (Some(&code), place), &self.ending_templates, stop)?;
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
