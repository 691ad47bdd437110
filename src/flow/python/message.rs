//! What the processes of the host and this side say to each other: one JSON document per line.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::flow::executor::{FlowJob, Outcome, WorkflowDocument};
use crate::model::run::TaskRecord;

/// To the run, first thing.
#[derive(Serialize)]
pub(super) struct JobMessage<'a> {
    pub run_id: &'a str,
    pub flow_name: &'a str,
    pub params: &'a Map<String, Value>,
    pub workflow_yaml: Option<&'a str>,
    /// What marks the parts of the output; see [`super::capture`].
    pub token: &'a str,
}

impl<'a> JobMessage<'a> {
    pub(super) fn new(job: &'a FlowJob, token: &'a str) -> Self {
        JobMessage {
            run_id: &job.run_id,
            flow_name: &job.flow_name,
            params: &job.params,
            workflow_yaml: job.workflow.as_ref().map(WorkflowDocument::text),
            token,
        }
    }
}

/// To the run, at most once.
pub(super) fn cancel_line() -> Vec<u8> {
    let mut line = json!({"cancel": true}).to_string().into_bytes();
    line.push(b'\n');
    line
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum RunMessage {
    /// Code of the flow is executed from here on: it is imported first.
    Begun {
        #[expect(dead_code, reason = "that it is there tells all")]
        begun: bool,
    },
    Flow {
        flow: String,
        tasks: Vec<String>,
    },
    Task(Box<TaskMessage>),
    /// The flow has ended; the process does so next.
    End {
        end: EndWord,
        #[serde(default)]
        error: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum EndWord {
    Completed,
    Failed,
    FlowNotFound,
    Cancelled,
    HostFault,
}

impl EndWord {
    /// `has_begun`: whether [`RunMessage::Begun`] has come before.
    pub(super) fn outcome(self, error: String, has_begun: bool) -> Outcome {
        match self {
            EndWord::Completed => Outcome::Completed,
            EndWord::Failed => Outcome::Failed { error },
            EndWord::FlowNotFound => Outcome::FlowNotFound { error },
            EndWord::Cancelled => Outcome::Cancelled,
            EndWord::HostFault => Outcome::HostFault { error, has_begun },
        }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct TaskMessage {
    /// Place in the list of tasks that came with the flow.
    pub task: usize,
    /// Seconds that it has from its start; only of one that is running.
    #[serde(default)]
    pub limit_sec: Option<f64>,
    /// What is known of it, but for what it has printed.
    #[serde(flatten)]
    pub record: TaskRecord,
}

/// The error of a run whose shim was killed.
pub(super) const SUPERVISOR_DIED: &str = "the supervisor of the run's process has died, and the run with it";

/// The error of a run that its shim has ended because this process stood still.
pub(super) const LAPSED: &str = "the worker stood still for too long, and its run was ended";

/// To the shim: the run may go on from one moment to another, in nanoseconds of CLOCK_BOOTTIME. A lease that
/// begins after the end of the one before has a gap, in which this process stood still.
pub(super) fn lease_line(from: Duration, until: Duration) -> Vec<u8> {
    format!("lease {} {}\n", from.as_nanos(), until.as_nanos()).into_bytes()
}

/// From the shim: that it is there, then how it has ended.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum ShimMessage {
    /// It waits for the job; with its process id.
    Started {
        started: u32,
    },
    /// The run has ended and so has everything below it, but for `left` processes.
    Exit {
        exit: i32,
        #[serde(default)]
        signal: Option<i32>,
        #[serde(default)]
        left: u32,
    },
    Refused {
        refused: String,
    },
    /// The lease has run out, and the shim has ended the run and everything below it, but for so many
    /// processes.
    Lapsed {
        lapsed: u32,
    },
}

impl ShimMessage {
    /// How a run ended whose flow has not said it. A run that was never started is the host's fault; one
    /// whose process or shim has died may have ended them itself.
    pub(super) fn outcome(&self) -> Outcome {
        match self {
            ShimMessage::Refused { .. } => Outcome::HostFault { error: self.error(), has_begun: false },
            ShimMessage::Lapsed { .. } => Outcome::Interrupted { error: self.error() },
            _ => Outcome::Failed { error: self.error() },
        }
    }

    pub(super) fn error(&self) -> String {
        match self {
            ShimMessage::Exit { signal: Some(signal), .. } => {
                let name = signal_hook::low_level::signal_name(*signal).unwrap_or("unknown");
                let guess = match name {
                    "SIGKILL" => "; the kernel does this when memory runs out",
                    "SIGSEGV" | "SIGBUS" | "SIGILL" | "SIGFPE" | "SIGABRT" => {
                        "; its native code has crashed, see the task's logs"
                    }
                    _ => "",
                };
                format!("the process of the run was ended by signal {signal} ({name}){guess}")
            }
            ShimMessage::Exit { exit, .. } => {
                format!("the process of the run exited with code {exit} before its flow had ended")
            }
            ShimMessage::Started { .. } => SUPERVISOR_DIED.to_owned(),
            ShimMessage::Refused { refused } => {
                format!("cannot start a process for the run: {refused}")
            }
            ShimMessage::Lapsed { .. } => LAPSED.to_owned(),
        }
    }
}

/// From the template, once.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Hello {
    Failed {
        failed: String,
        error: String,
        #[serde(default)]
        traceback: String,
        python: String,
    },
    Ready {
        python: String,
        pyoco: Option<String>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_apart() {
        let flow = serde_json::from_str(r#"{"flow":"main","tasks":["a"]}"#).unwrap();
        assert!(matches!(flow, RunMessage::Flow { .. }));
        let task = r#"{"task":0,"state":"RUNNING","started_at":1.5,"ended_at":null,
            "duration_ms":null,"error":null,"traceback":null,"inputs":{},"output":null,"artifacts":{}}"#;
        assert!(matches!(serde_json::from_str(task).unwrap(), RunMessage::Task(_)));
        let end = serde_json::from_str(r#"{"end":"flow_not_found","error":"x"}"#).unwrap();
        let RunMessage::End { end, error } = end else { panic!("{end:?}") };
        assert_eq!(end.outcome(error, true), Outcome::FlowNotFound { error: "x".into() });
    }

    #[test]
    fn a_signal_is_named() {
        let exit = ShimMessage::Exit { exit: -9, signal: Some(9), left: 0 };
        assert!(exit.error().contains("signal 9 (SIGKILL)"), "{}", exit.error());
        let exit = ShimMessage::Exit { exit: 3, signal: None, left: 0 };
        assert!(exit.error().contains("code 3"), "{}", exit.error());
    }
}
