// The tasks of a run: a row each, which opens to what went in, what came out and what was printed.

import { el, keyed, replace } from "./dom.js";
import { moment, now, size, span } from "./format.js";
import { t } from "./i18n.js";
import { running } from "./moving.js";
import { badge, block, copyButton, fold, isEmpty, section, value } from "./pieces.js";

/** Tasks that are drawn at first; a run may have 10,000. */
const MOST = 200;

/** Failed tasks with their records, the one that failed first before the others. */
export function failedTasks(run) {
  const failed = Object.entries(run.task_records ?? {}).filter(
    ([, record]) => record.state === "FAILED" || record.error,
  );
  return failed.sort(([, a], [, b]) => (a.ended_at ?? 0) - (b.ended_at ?? 0));
}

export class TaskTable {
  constructor() {
    this.most = MOST;
    this.list = el("div", { class: "tasks" });
    this.notes = el("div");
  }

  draw(part, run) {
    const names = Object.keys(run.tasks ?? {});
    if (!part.contains(this.list)) replace(part, section(t("tasks.title"), this.notes, this.list));
    replace(this.notes, this.notices(part, run, names));
    const tasks = names
      .slice(0, this.most)
      .map((name) => ({ name, state: run.tasks[name], record: run.task_records?.[name] ?? {} }));
    keyed(this.list, tasks, (task) => task.name, row);
  }

  notices(part, run, names) {
    const more = () => {
      this.most = Infinity;
      this.draw(part, run);
    };
    return [
      names.length === 0 ? el("p", { class: "quiet" }, t("tasks.none")) : null,
      run.task_records_truncated ? el("p", { class: "warning" }, t("tasks.truncated")) : null,
      run.task_logs_truncated ? el("p", { class: "warning" }, t("tasks.logs_truncated")) : null,
      names.length > this.most
        ? el("button", { type: "button", class: "small", onclick: more }, t("tasks.all", { n: names.length }))
        : null,
    ];
  }
}

function row({ name, state, record }) {
  const parts = [...data(record)];
  return el(
    "details",
    { class: `task is-${state.toLowerCase()}`, "data-task": name },
    el(
      "summary",
      {},
      el("span", { class: "task-name" }, name),
      badge(state, "task"),
      el("span", { class: "task-time" }, took(state, record)),
    ),
    record.started_at
      ? el("p", { class: "quiet" }, moment(record.started_at), record.ended_at ? ` – ${moment(record.ended_at)}` : "")
      : null,
    parts.length > 0 ? parts : el("p", { class: "quiet" }, t("task.nothing")),
  );
}

function took(state, { started_at: from, ended_at: to, duration_ms: milliseconds }) {
  if (typeof milliseconds === "number") return span(milliseconds / 1000);
  if (!from) return "";
  if (to) return span(to - from);
  return state === "RUNNING" ? running(() => span(now() - from)) : "";
}

/** The parts of a record that say something, errors first. */
function* data(record) {
  if (record.error) yield part("error", block(record.error, "bad"));
  if (record.traceback) yield fold(t("task.traceback"), block(record.traceback), true);
  yield* logs(record.logs);
  for (const name of ["inputs", "output", "artifacts"]) {
    if (!isEmpty(record[name])) yield part(name, value(record[name]), JSON.stringify(record[name], null, 2));
  }
}

function part(name, node, text) {
  return el("div", { class: "task-part" }, el("h4", {}, t(`task.${name}`), text ? copyButton(() => text) : null), node);
}

function* logs(logs) {
  if (!logs) return;
  for (const name of ["stdout", "stderr"]) {
    if (logs[name]) yield part(name, block(logs[name]), logs[name]);
  }
  if (logs.dropped_bytes > 0) yield el("p", { class: "quiet" }, t("task.dropped", { size: size(logs.dropped_bytes) }));
}
