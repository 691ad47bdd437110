//! The routes: a table, one handler per file, and what all of them share.
//!
//! [`dispatch`] is the way of each request: its route was found in the table of [`route`], the caller is
//! found out, the handler runs with a [`context`], and the audit hears how it ended. A handler reads its
//! request with [`schema`], acts through the bus, and returns an answer or an [`error::ApiError`].

mod audit;
pub mod context;
pub mod dispatch;
pub mod error;
mod events;
pub mod health;
mod metrics;
mod openapi;
mod page;
pub mod route;
mod runs;
pub mod schema;
mod wheels;
pub mod workers;
