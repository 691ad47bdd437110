//! The life of one job, from its delivery to its settlement, in the order of the files:
//! [`in_flight`] knows a job that is executed already, [`claim`] decides what a delivery means,
//! [`execute`] is the state machine, [`tick`] keeps the delivery alive, [`record`] writes the
//! snapshot within its [`size_budget`], and [`settle`] says how it all ends.

pub(super) mod claim;
pub(super) mod execute;
pub(super) mod in_flight;
mod record;
pub(super) mod settle;
mod size_budget;
mod tick;
