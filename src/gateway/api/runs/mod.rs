//! The routes of runs.

pub mod cancel;
pub mod list;
pub mod show;
pub mod submit;
pub mod submit_yaml;
pub mod watch;
