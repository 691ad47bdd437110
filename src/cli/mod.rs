//! The four command lines: arguments in, one call into the floors below, an exit code out.
//!
//! Only this floor reads the environment and the command line; the floors below are handed values.
//! Data goes to stdout, messages go to stderr. [`exit`] has the exit codes, and [`failure`] the form of
//! each error. It may import all floors; only the programs in `src/bin` import it.

pub mod admin;
pub mod client;
pub mod exit;
pub mod failure;
mod program;
pub mod server;
mod signals;
pub mod worker;
