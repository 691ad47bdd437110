//! The four command lines: arguments in, one call into the floors below, an exit code out.
//!
//! Only this floor reads the environment and the command line; the floors below are handed values.
//! Data goes to stdout, messages go to stderr, [`exit`] holds what each ending is called and
//! [`failure`] how each error looks. It knows everybody; nobody but the programs in `src/bin`
//! knows it.

pub mod admin;
pub mod client;
pub mod exit;
pub mod failure;
mod program;
pub mod server;
mod signals;
pub mod worker;
