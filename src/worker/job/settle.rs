//! How a job ends (`docs/spec.md#how-a-job-ends`): which snapshot, which verdict, which DLQ entry.

use super::tag_of;
use crate::bus::Delivered;
use crate::flow::Outcome;
use crate::model::clock;
use crate::model::dlq::{DlqEntry, DlqReason};
use crate::model::error::Code;
use crate::model::job::Job;
use crate::model::run::RunStatus;
use crate::worker::Context;

#[derive(Debug, PartialEq)]
pub(crate) struct Ending {
    pub status: RunStatus,
    pub error: Option<String>,
    pub dlq: Option<DlqReason>,
}

/// The table of `docs/spec.md#how-a-job-ends`, as far as it is about executed flows.
pub(crate) fn decide(outcome: Outcome, cancelled: bool, dlq_execution_errors: bool) -> Ending {
    match outcome {
        Outcome::Completed => Ending { status: RunStatus::Completed, error: None, dlq: None },
        Outcome::Cancelled => Ending { status: RunStatus::Cancelled, error: None, dlq: None },
        // A task that fails because it was told to end has been cancelled.
        Outcome::Failed { .. }
        | Outcome::FlowNotFound { .. }
        | Outcome::HostFault { .. }
        | Outcome::Interrupted { .. }
            if cancelled =>
        {
            Ending { status: RunStatus::Cancelled, error: None, dlq: None }
        }
        // A fault of the host comes here only after the flow had caused it time and again; the job of an
        // interrupted execution is given back before.
        Outcome::Failed { error } | Outcome::HostFault { error, .. } | Outcome::Interrupted { error } => {
            Ending {
                status: RunStatus::Failed,
                error: Some(error),
                dlq: dlq_execution_errors.then_some(DlqReason::ExecutionError),
            }
        }
        Outcome::FlowNotFound { error } => Ending {
            status: RunStatus::Failed,
            error: Some(format!("flow_not_found: {error}")),
            dlq: Some(DlqReason::FlowNotFound),
        },
    }
}

/// Publishes a DLQ entry about a job, which came on a subject for so many times; a failure is logged and
/// changes nothing else.
pub(crate) fn publish_dlq(
    context: &Context,
    job: &Job,
    message: (&str, u64),
    reason: DlqReason,
    error: &str,
) {
    let entry = DlqEntry::of_job(job, reason, error, clock::now());
    publish(context, &job.tag, entry, message);
}

/// Takes a message that is no job out of the queue: TERM and a DLQ entry with its first bytes.
pub(crate) fn terminate_invalid(context: &Context, delivered: &Delivered, error: &str) {
    let code = Code::InvalidJob;
    log::warn!(err_id = code.err_id(), msg_id = code.msg_id(), subject = delivered.subject.as_str(),
        reason = error; "a message in the work queue is no job");
    let message = (delivered.subject.as_str(), delivered.num_delivered);
    let entry = DlqEntry::of_no_job(&delivered.payload, error, clock::now());
    publish(context, tag_of(message.0), entry, message);
    if let Err(e) = delivered.term() {
        log::warn!(subject = delivered.subject.as_str(), error = e.to_string();
            "cannot terminate an invalid job; it comes again");
    }
}

/// Publishes an entry of the DLQ about a message, which came on a subject for so many times.
pub(crate) fn publish(context: &Context, tag: &str, entry: DlqEntry, (subject, num_delivered): (&str, u64)) {
    let entry = DlqEntry {
        worker_id: Some(context.settings.worker_id.clone()),
        num_delivered: Some(num_delivered),
        subject: Some(subject.to_owned()),
        ..entry
    };
    let published = crate::model::json::to_wire(&entry)
        .map_err(|e| e.to_string())
        .and_then(|payload| context.queue.publish_dlq(tag, &payload).map_err(|e| e.to_string()));
    if let Err(e) = published {
        let code = Code::DlqFailed;
        log::error!(err_id = code.err_id(), msg_id = code.msg_id(),
            run_id = entry.run_id.as_deref().unwrap_or_default(), error = e;
            "cannot publish a DLQ entry");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed() -> Outcome {
        Outcome::Failed { error: "boom".into() }
    }

    #[test]
    fn outcomes_map_to_the_contracts_table() {
        for (outcome, cancelled, publish, status, dlq) in [
            (Outcome::Completed, false, true, RunStatus::Completed, None),
            // The cancel came too late: what is done is done.
            (Outcome::Completed, true, true, RunStatus::Completed, None),
            (Outcome::Cancelled, true, true, RunStatus::Cancelled, None),
            (failed(), false, true, RunStatus::Failed, Some(DlqReason::ExecutionError)),
            (failed(), false, false, RunStatus::Failed, None),
            (failed(), true, true, RunStatus::Cancelled, None),
        ] {
            let ending = decide(outcome.clone(), cancelled, publish);
            assert_eq!((ending.status, ending.dlq), (status, dlq), "{outcome:?} {cancelled}");
        }
        let ending = decide(Outcome::FlowNotFound { error: "no `x`".into() }, false, false);
        assert_eq!(ending.dlq, Some(DlqReason::FlowNotFound));
        assert_eq!(ending.error.as_deref(), Some("flow_not_found: no `x`"));
    }
}
