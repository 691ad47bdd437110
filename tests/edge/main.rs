//! The way from a public socket to a handler, attacked with everything that tiny_http alone does
//! not survive.

#![allow(clippy::unwrap_used)]

mod support;

mod broken_uploads;
mod crowds;
mod exhaustion;
mod hostile;
mod limits;
mod proxy;
mod requests;
mod stop;
mod streams;
mod uploads;
