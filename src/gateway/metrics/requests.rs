//! Requests by method, route and code, and how long they took.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::histogram::Histogram;
use super::text::{Kind, Text};

/// Upper bounds of a request's time, in seconds; no request takes much longer than its wait for NATS.
const TIMES: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// What answers without a route count under: unknown paths, wrong methods.
const NO_ROUTE: &str = "(none)";
/// Requests that the HTTP floor has refused by itself count under.
const EDGE: &str = "(edge)";
/// Methods that have a name; clients may make up others.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

#[derive(Clone, Default)]
pub struct RequestFigures(Arc<Mutex<Counts>>);

#[derive(Default)]
struct Counts {
    answered: BTreeMap<(&'static str, &'static str, u16), u64>,
    times: BTreeMap<&'static str, Histogram<13>>,
}

impl RequestFigures {
    /// `route` is the path of its route. Only what has a duration goes into the histogram.
    pub fn answered(
        &self,
        method: &str,
        route: Option<&'static str>,
        status: u16,
        duration: Option<Duration>,
    ) {
        let method = METHODS.into_iter().find(|known| *known == method).unwrap_or("other");
        let path = route.unwrap_or(NO_ROUTE);
        let mut counts = self.0.lock();
        *counts.answered.entry((method, path, status)).or_default() += 1;
        if let Some(duration) = duration {
            let times = counts.times.entry(path).or_insert_with(|| Histogram::new(&TIMES));
            times.observe(duration);
        }
    }

    pub fn refused(&self, status: u16) {
        *self.0.lock().answered.entry(("other", EDGE, status)).or_default() += 1;
    }

    pub(crate) fn write(&self, text: &mut Text) {
        let counts = self.0.lock();
        let help = "Requests by method, route and status code.";
        let mut family = text.family("pyoco_http_requests_total", Kind::Counter, help);
        for ((method, path, code), count) in &counts.answered {
            let (route, code) = (path.replace("{}", "{id}"), code.to_string());
            let labels = [("method", *method), ("route", route.as_str()), ("code", code.as_str())];
            family.sample(&labels, *count as f64);
        }
        let help = "Time from a request's arrival at a handler to the end of its answer; streams of events do not count.";
        let mut family = text.family("pyoco_http_request_duration_seconds", Kind::Histogram, help);
        for (path, times) in &counts.times {
            family.histogram(&[("route", &path.replace("{}", "{id}"))], times);
        }
    }
}
