//! The dashboard: how it is served, and what it does in a real browser.
//!
//! Each scenario is a small Python program in `browser/` that opens the page in a headless chromium,
//! uses it as a visitor would, and ends with an exception when something is not as it should be. Any
//! error in the browser's console and any request that leaves this machine fails it, too.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

mod browser;

mod js;
mod scenarios;
mod screenshots;
mod served;
mod texts;
mod wheels;
