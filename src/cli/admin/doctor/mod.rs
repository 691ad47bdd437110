//! `doctor`: what is wrong with an installation, or will be, and what of it can be put right without a loss.
//!
//! Each check is one line of JSON: an error makes `ok` false and the exit code 1, a warning does neither and
//! says the way out.

mod check;
mod deliveries;
mod resources;
mod room;
mod server;

use crate::bus::Bus;
use crate::cli::exit::Exit;
use crate::cli::program;

use check::Report;
use server::Monitor;

pub(super) fn run(bus: &Bus, monitor_url: Option<&str>, fix: bool) -> Exit {
    let mut report = Report::default();
    if fix {
        resources::fix(bus, &mut report);
    }
    let server = bus.server();
    let monitor = Monitor::ask(server.as_ref(), monitor_url);
    report.add(server::nats(server.as_ref()));
    report.add(server::max_payload(bus));
    report.add(server::sync_interval(&monitor));
    let streams = bus.inspect();
    resources::check(bus, &streams, server.as_ref(), &mut report);
    report.add(room::account(bus));
    report.extend(room::store(&monitor));
    report.add(deliveries::stuck(&bus.queue()));
    report.add(resources::writes(bus, &streams));
    match (program::print(report.text()), report.all_ok()) {
        (Exit::Done, false) => Exit::Failed,
        (printed, _) => printed,
    }
}
