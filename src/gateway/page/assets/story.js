// What happened to a run, in order: submitted, waited, executed, cancelled, ended.

import { el } from "./dom.js";
import { fleetState, isAlive, serving, worker } from "./fleet.js";
import { now, span } from "./format.js";
import { t } from "./i18n.js";
import { running, when } from "./moving.js";
import { badge, empty, isTerminal, workerLink } from "./pieces.js";

const GRACE_SEC = Number(document.documentElement.dataset.cancelGraceSec) || 30;

export function story(run) {
  return el(
    "ol",
    { class: "story" },
    [submitted, queued, executed, cancelled, ended].flatMap((step) => step(run) ?? []),
  );
}

function step(kind, ...content) {
  return el("li", { class: `step-${kind}` }, ...content);
}

function submitted(run) {
  if (!run.submitted_at) return null;
  return step("done", t("story.submitted"), " ", when(run.submitted_at));
}

function queued(run) {
  const tag = el("span", { class: "tag" }, run.tag);
  if (run.start_time) {
    const waited = run.submitted_at ? span(run.start_time - run.submitted_at) : "–";
    return step("done", t("story.waited", { span: waited }), " ", tag);
  }
  if (isTerminal(run.status)) return step("done", t("story.never_started"), " ", tag);
  const waiting = running(() => t("story.waiting", { span: span(now() - (run.submitted_at ?? now())) }));
  const nobody = fleetState().loaded && serving(run.tag).length === 0;
  return step(
    "now",
    waiting,
    " ",
    tag,
    nobody ? empty(t("story.nobody", { tag: run.tag }), [`pyoco-worker --tags ${run.tag}`]) : null,
  );
}

function executed(run) {
  if (!run.start_time) return null;
  const record = run.worker_id ? worker(run.worker_id) : null;
  const goesOn = !isTerminal(run.status);
  const lines = [
    el(
      "span",
      {},
      t("story.started"),
      " ",
      when(run.start_time),
      " ",
      run.worker_id ? [t("story.on"), " ", workerLink(run.worker_id), " "] : null,
      record ? badge(record.state, "worker") : null,
    ),
    run.attempt > 1 ? el("p", { class: "quiet" }, t("story.attempt", { n: run.attempt })) : null,
    goesOn ? el("p", { class: "quiet" }, t("story.heartbeat"), " ", when(run.heartbeat_at)) : null,
    goesOn && record && !isAlive(record) ? el("p", { class: "warning" }, t("story.worker_gone")) : null,
  ];
  return step(goesOn ? "now" : "done", ...lines);
}

function cancelled(run) {
  if (!run.cancel_requested_at) return null;
  const by = run.cancel_requested_by ? ` ${t("story.cancel_by", { who: run.cancel_requested_by })}` : "";
  const left = () => run.cancel_requested_at + GRACE_SEC - now();
  const waiting = () => (left() > 0 ? t("story.grace", { span: span(left()) }) : t("story.grace_over"));
  return step(
    isTerminal(run.status) ? "done" : "now",
    t("story.cancel"),
    " ",
    when(run.cancel_requested_at),
    by,
    run.cancel_reason ? el("p", {}, t("story.cancel_reason"), " ", el("q", {}, run.cancel_reason)) : null,
    isTerminal(run.status) ? null : el("p", { class: "quiet" }, running(waiting)),
  );
}

function ended(run) {
  if (!isTerminal(run.status)) return null;
  const took =
    run.start_time && run.end_time ? ` ${t("story.took", { span: span(run.end_time - run.start_time) })}` : "";
  return step(
    run.status.toLowerCase(),
    badge(run.status),
    " ",
    when(run.end_time ?? run.updated_at),
    took,
    outcome(run),
  );
}

/** What became of a cancel. */
function outcome(run) {
  if (!run.cancel_requested_at) return null;
  const after = span((run.end_time ?? run.updated_at) - run.cancel_requested_at);
  const word = run.status === "CANCELLED" ? "story.cancel_done" : "story.cancel_late";
  return el("p", {}, t(word, { span: after }));
}
