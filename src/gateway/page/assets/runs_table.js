// The table of runs: one row per run, sorted as the URL says.

import { el, keyed, replace } from "./dom.js";
import { now, span } from "./format.js";
import { t } from "./i18n.js";
import { running, when } from "./moving.js";
import { badge, isTerminal, runLink, shortId, tags, workerLink } from "./pieces.js";
import { to, withQuery } from "./route.js";

/** Columns with what they are sorted by; the first value is the direction that is of use first. */
const COLUMNS = {
  status: ["up", (run) => run.status],
  flow: ["up", (run) => run.flow_name],
  id: null,
  tag: ["up", (run) => run.tag],
  worker: ["up", (run) => run.worker_id ?? ""],
  changed: ["down", changedAt],
  duration: ["down", duration],
  error: null,
};

export function drawTable(place, runs, query, notice) {
  let body = place.querySelector("tbody");
  if (!body) {
    body = el("tbody");
    replace(place, el("div", { class: "table-notice" }), el("table", { class: "runs" }, el("thead"), body));
  }
  replace(place.querySelector(".table-notice"), notice);
  const sort = sorting(query.get("sort") ?? "-changed");
  const heads = Object.keys(COLUMNS).map((name) => heading(name, sort));
  replace(place.querySelector("thead"), el("tr", {}, heads));
  keyed(body, sorted(runs, sort), (run) => run.run_id, row, sign);
}

function sorting(text) {
  const name = text.replace(/^-/, "");
  return { name: Object.hasOwn(COLUMNS, name) && COLUMNS[name] ? name : "changed", direction: text.startsWith("-") ? "down" : "up" };
}

function sorted(runs, { name, direction }) {
  const by = COLUMNS[name][1];
  const sign = direction === "up" ? 1 : -1;
  const order = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
  return runs
    .map((run) => [by(run), run])
    .sort(([a], [b]) => sign * order(a, b))
    .map(([, run]) => run);
}

function heading(name, sort) {
  const label = t(`runs.column.${name}`);
  if (!COLUMNS[name]) return el("th", { scope: "col", class: `of-${name}` }, label);
  const isCurrent = sort.name === name;
  const next = isCurrent ? (sort.direction === "up" ? "down" : "up") : COLUMNS[name][0];
  const aria = sort.direction === "up" ? "ascending" : "descending";
  return el(
    "th",
    { scope: "col", class: `of-${name}`, "aria-sort": isCurrent ? aria : null },
    el(
      "a",
      { href: withQuery({ sort: (next === "down" ? "-" : "") + name }), title: t("runs.sort_help") },
      label,
      isCurrent ? (sort.direction === "up" ? " ▲" : " ▼") : "",
    ),
  );
}

/** What a row shows: a heartbeat does not draw it anew. */
function sign(run) {
  const { heartbeat_at: _, updated_at: __, ...shown } = run;
  return JSON.stringify([shown, changedAt(run)]);
}

/**
 * When the status became what it is. The time of the last write would do for runs that have ended, but
 * those that execute are written all the time, and their rows would never stand still.
 */
function changedAt(run) {
  const at = { PENDING: run.submitted_at, RUNNING: run.start_time, CANCELLING: run.cancel_requested_at };
  return (isTerminal(run.status) ? run.end_time : at[run.status]) ?? run.updated_at;
}

function row(run) {
  const cell = (name, ...content) => el("td", { class: `of-${name}` }, ...content);
  return el(
    "tr",
    { "data-run": run.run_id, class: `row-${run.status.toLowerCase()}` },
    cell("status", badge(run.status)),
    cell("flow", el("a", { href: to("run", run.run_id) }, run.flow_name)),
    cell("id", runLink(run.run_id, shortId(run.run_id))),
    cell("tag", tags([run.tag, ...(run.tags ?? []).filter((tag) => tag !== run.tag)])),
    cell("worker", run.worker_id ? workerLink(run.worker_id) : ""),
    cell("changed", when(changedAt(run))),
    cell("duration", took(run)),
    cell("error", run.error ? el("span", { class: "error-line", title: run.error }, run.error.split("\n")[0]) : ""),
  );
}

function duration(run) {
  if (!run.start_time) return 0;
  return (run.end_time ?? now()) - run.start_time;
}

function took(run) {
  if (!run.start_time) return "";
  return run.end_time ? span(run.end_time - run.start_time) : running(() => span(now() - run.start_time));
}
