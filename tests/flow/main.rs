//! Native flows end to end through the executor seam.

#[path = "../support/flow.rs"]
mod flow;

mod cancel;
mod order;
mod support;
mod values;
