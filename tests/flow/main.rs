//! Native flows end to end through the executor seam.

mod cancel;
mod order;
mod support;
mod values;
