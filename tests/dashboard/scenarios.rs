//! What a visitor does, one scenario each.

use crate::browser::{english, finish, folder, open, play, with_worker, worker};
use crate::support::python::V08;
use crate::support::wait::PATIENCE;

#[test]
fn the_list_fills_and_is_filtered() {
    play(&with_worker(), "runs");
}

#[test]
fn the_one_failed_run_of_many_is_two_clicks_away() {
    play(&english().start(), "needle");
}

#[test]
fn a_run_is_watched_to_its_end() {
    play(&with_worker(), "watch");
}

#[test]
fn a_run_in_python_shows_what_it_printed_and_where_it_failed() {
    let flows = folder().join("../../examples/python/flows.py").canonicalize().unwrap();
    let cluster = worker(english(), "worker-1", "default,gpu").python(V08);
    let cluster = cluster.resolver(&format!("{}:resolve_flow", flows.display())).start();
    play(&cluster, "python");
}

#[test]
fn a_run_is_cancelled() {
    play(&with_worker(), "cancel");
}

#[test]
fn language_and_key_are_kept_where_they_belong() {
    play(&with_worker(), "settings");
}

#[test]
fn a_gateway_that_asks_for_keys_is_used_with_one() {
    let cluster = english().with_keys().start();
    let (viewer, operator) = (cluster.key_text("t", "viewer"), cluster.key_text("t", "operator"));
    let keys = [("PYOCO_TEST_VIEWER", &*viewer), ("PYOCO_TEST_OPERATOR", &*operator)];
    finish(open(&cluster, "keys", &keys), "keys");
}

#[test]
fn the_forms_submit_and_tell_what_is_wrong() {
    play(&with_worker(), "submit");
}

#[test]
fn figures_and_panels_stand_by_themselves() {
    play(&with_worker(), "metrics");
}

#[test]
fn the_keyboard_and_a_small_screen_are_enough() {
    play(&with_worker(), "access");
}

#[test]
fn the_parts_of_the_page_do_what_they_say() {
    play(&english().start(), "parts");
}

#[test]
fn a_tab_that_nobody_looks_at_gives_its_stream_back() {
    play(&english().start(), "hidden");
}

#[test]
fn an_outage_is_shown_and_passes_without_a_reload() {
    let mut cluster = with_worker();
    let mut scenario = open(&cluster, "outage", &[]);
    scenario.wait_for_line(PATIENCE, "the page open", |line| line.contains("stop nats"));
    cluster.nats.stop();
    scenario.wait_for_line(PATIENCE, "the outage seen", |line| line.contains("start nats"));
    cluster.nats.restart();
    scenario.wait_for_line(PATIENCE * 2, "the recovery seen", |line| line.contains("stop gateway"));
    cluster.gateways[0].stop();
    scenario.wait_for_line(PATIENCE, "the loss seen", |line| line.contains("start gateway"));
    cluster.gateways[0].restart();
    finish(scenario, "outage");
}

#[test]
fn workers_come_and_go_and_are_hidden() {
    let mut cluster = with_worker();
    let mut scenario = open(&cluster, "workers", &[]);
    scenario.wait_for_line(PATIENCE * 2, "the worker seen", |line| line.contains("stop worker"));
    cluster.worker("worker-1").stop(PATIENCE);
    finish(scenario, "workers");
}
