//! What a visitor does, one scenario each.

use crate::stage::{Stage, finish};
use crate::support::wait::PATIENCE;

#[test]
fn the_list_fills_and_is_filtered() {
    Stage::start().with_worker().play("runs");
}

#[test]
fn the_one_failed_run_of_many_is_two_clicks_away() {
    Stage::start().play("needle");
}

#[test]
fn a_run_is_watched_to_its_end() {
    Stage::start().with_worker().play("watch");
}

#[test]
fn a_run_in_python_shows_what_it_printed_and_where_it_failed() {
    Stage::start().with_python_worker().play("python");
}

#[test]
fn a_run_is_cancelled() {
    Stage::start().with_worker().play("cancel");
}

#[test]
fn language_and_key_are_kept_where_they_belong() {
    Stage::start().with_worker().play("settings");
}

#[test]
fn a_gateway_that_asks_for_keys_is_used_with_one() {
    let asking = [("PYOCO_HTTP_AUTH_MODE", "api_key")];
    let stage = Stage::start_with(&["--dashboard-lang", "en"], &asking);
    let (viewer, operator) = (stage.key("viewer"), stage.key("operator"));
    let keys = [("PYOCO_TEST_VIEWER", &*viewer), ("PYOCO_TEST_OPERATOR", &*operator)];
    finish(stage.open_with("keys", &keys), "keys");
}

#[test]
fn the_forms_submit_and_tell_what_is_wrong() {
    Stage::start().with_worker().play("submit");
}

#[test]
fn figures_and_panels_stand_by_themselves() {
    Stage::start().with_worker().play("metrics");
}

#[test]
fn the_keyboard_and_a_small_screen_are_enough() {
    Stage::start().with_worker().play("access");
}

#[test]
fn the_parts_of_the_page_do_what_they_say() {
    Stage::start().play("parts");
}

#[test]
fn a_tab_that_nobody_looks_at_gives_its_stream_back() {
    Stage::start().play("hidden");
}

#[test]
fn an_outage_is_shown_and_passes_without_a_reload() {
    let mut stage = Stage::start().with_worker();
    let mut scenario = stage.open("outage");
    scenario.wait_for_line(PATIENCE, "the page open", |line| line.contains("stop nats"));
    stage.nats.stop();
    scenario.wait_for_line(PATIENCE, "the outage seen", |line| line.contains("start nats"));
    stage.nats.restart();
    scenario.wait_for_line(PATIENCE * 2, "the recovery seen", |line| line.contains("stop gateway"));
    stage.stop_gateway();
    scenario.wait_for_line(PATIENCE, "the loss seen", |line| line.contains("start gateway"));
    stage.start_gateway();
    finish(scenario, "outage");
}

#[test]
fn workers_come_and_go_and_are_hidden() {
    let mut stage = Stage::start().with_worker();
    let mut scenario = stage.open("workers");
    scenario.wait_for_line(PATIENCE * 2, "the worker seen", |line| line.contains("stop worker"));
    stage.workers.remove(0).stop(PATIENCE);
    finish(scenario, "workers");
}
