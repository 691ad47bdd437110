//! The life of one job, from its delivery to its settlement, in the order of the files:
//! [`in_flight`] knows a job that is executed already, [`claim`] takes the run, [`execute`] is the state
//! machine, [`tick`] keeps the delivery alive, [`record`] writes the snapshot within its [`size_budget`],
//! [`settle`] says how it all ends, and [`give_back`] leaves the job to another worker. What each of them
//! decides on is in [`crate::delivery`].

mod claim;
pub(super) mod execute;
pub(super) mod give_back;
pub(super) mod in_flight;
mod record;
pub(super) mod settle;
mod size_budget;
mod tick;

/// The tag of a subject of the work queue: its last token.
pub(super) fn tag_of(subject: &str) -> &str {
    subject.rsplit('.').next().unwrap_or_default()
}
