//! Each mend of the protocol, taken out, is missed: some history goes wrong without it.

use pyoco_server::delivery::mends::{Mend, take_out};

use crate::sim;

/// Histories that are tried without a mend.
const HISTORIES: u64 = 20_000;

/// What goes wrong first without a mend.
fn found(mend: Mend) -> String {
    take_out(Some(mend));
    let problem = (0..HISTORIES).find_map(|seed| sim::run(seed).err());
    take_out(None);
    problem.unwrap_or_else(|| panic!("{HISTORIES} histories go well without {mend:?}"))
}

#[test]
fn without_the_look_at_stuck_messages_runs_wait_for_ever() {
    let problem = found(Mend::StuckMessages);
    assert!(problem.contains("after the last fault"), "{problem}");
}

#[test]
fn without_the_count_of_deaths_runs_fail_that_were_given_back() {
    let problem = found(Mend::OnlyDeathsCount);
    assert!(problem.contains("max_deliver_exceeded"), "{problem}");
}

#[test]
fn without_a_bound_on_what_is_stored_a_run_that_has_ended_keeps_its_slot() {
    let problem = found(Mend::TooLargeEnds);
    assert!(problem.contains("after the last fault"), "{problem}");
}

#[test]
fn without_a_look_for_its_own_message_the_orphan_of_a_submit_waits_for_others() {
    let problem = found(Mend::OwnMessage);
    assert!(problem.contains("after the last fault") && problem.contains("accepted: false"), "{problem}");
}

#[test]
fn without_the_wait_of_other_gateways_a_delivery_is_given_back_twice() {
    found(Mend::OneRescue);
}

#[test]
fn without_a_look_at_the_snapshot_a_run_is_taken_from_the_worker_that_executes_it() {
    let problem = found(Mend::OnlyHeldGoesBack);
    assert!(problem.contains("it has not"), "{problem}");
}
