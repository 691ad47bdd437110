// One run, live: what happened, the errors first, its tasks, its data.

import { cancelBox } from "./cancel.js";
import { announce, el, replace } from "./dom.js";
import { followFleet } from "./fleet.js";
import { now } from "./format.js";
import { t } from "./i18n.js";
import { running } from "./moving.js";
import {
  badge,
  block,
  copyButton,
  empty,
  fold,
  guarded,
  isEmpty,
  isTerminal,
  problem,
  section,
  tags,
  value,
} from "./pieces.js";
import { to } from "./route.js";
import { runWheels } from "./run_wheels.js";
import { story } from "./story.js";
import { openStream } from "./stream.js";
import { TaskTable, failedTasks } from "./tasks.js";
import { Timeline } from "./timeline.js";

/** How long one stream lasts; the longest that the gateway gives. */
const WATCH_SEC = 600;

export function runPage(place, { id }) {
  let run = null;
  let close = () => {};
  const names = ["head", "notice", "errors", "story", "cancel", "timeline", "tasks", "wheels", "data"];
  const parts = Object.fromEntries(names.map((name) => [name, el("div", { class: `part part-${name}` })]));
  place.append(...Object.values(parts));
  replace(parts.head, el("h1", {}, t("nav.run")), el("p", { class: "quiet" }, t("loading")));
  const timeline = new Timeline();
  const tasks = new TaskTable();
  const cancel = cancelBox(id, (snapshot) => {
    // The stream may already have sent the end.
    if (run && !isTerminal(run.status)) take({ ...run, ...snapshot, task_records: run.task_records });
  });
  let drawnData = "";
  let drawnWheels = "";

  function open() {
    close();
    close = openStream(
      `/runs/${encodeURIComponent(id)}/watch?include=records&until_terminal=true&timeout_sec=${WATCH_SEC}`,
      {
        event({ name, data }) {
          if (name === "snapshot") take(data.snapshot);
        },
        lost(seconds, error) {
          const again = now() + seconds;
          replace(
            parts.notice,
            el(
              "div",
              {},
              error?.status ? problem(error) : el("p", { class: "warning" }, t("run.lost")),
              el(
                "p",
                { class: "quiet" },
                running(() => t("connection.retry", { n: Math.max(0, Math.ceil(again - now())) })),
              ),
            ),
          );
        },
        refused(error) {
          if (error.status === 404) {
            replace(parts.head, el("h1", {}, t("run.missing")));
            replace(
              parts.notice,
              empty(t("run.missing_help", { id }), ["pyoco-client list --output table"]),
              el("a", { class: "button", href: to("runs") }, t("run.back")),
            );
          } else {
            replace(parts.notice, problem(error, open));
          }
        },
        ended: () => run !== null && isTerminal(run.status),
      },
    );
  }

  function take(snapshot) {
    if (run && run.status !== snapshot.status) announce(t("run.now", { status: t(`run.${snapshot.status}`) }));
    run = snapshot;
    replace(parts.notice);
    draw();
  }

  function draw() {
    if (!run) return;
    document.title = `${run.flow_name} · ${t(`run.${run.status}`)} · Pyoco`;
    guarded(parts.head, drawHead);
    guarded(parts.errors, drawErrors);
    guarded(parts.story, drawStory);
    guarded(parts.cancel, () => replace(parts.cancel, cancel.draw(run)));
    guarded(parts.timeline, () => timeline.draw(parts.timeline, run));
    guarded(parts.tasks, () => tasks.draw(parts.tasks, run));
    guarded(parts.wheels, drawWheels);
    guarded(parts.data, drawData);
  }

  function drawHead() {
    replace(
      parts.head,
      el("p", { class: "quiet" }, el("a", { href: to("runs") }, `← ${t("run.back")}`)),
      el("div", { class: "title" }, el("h1", {}, run.flow_name, " ", badge(run.status)), again()),
      el(
        "p",
        { class: "ids" },
        el("code", {}, run.run_id),
        copyButton(() => run.run_id),
        tags([run.tag, ...(run.tags ?? []).filter((tag) => tag !== run.tag)]),
      ),
    );
  }

  // A run that brought its document along cannot be sent again from here: no program keeps the document.
  function again() {
    if (run.workflow_yaml_sha256 || run.params_truncated) return null;
    const query = { flow: run.flow_name, tag: run.tag, params: isEmpty(run.params) ? "" : JSON.stringify(run.params) };
    return el("a", { class: "button", href: to("submit", "", query) }, t("run.again"));
  }

  function drawStory() {
    replace(parts.story, section(t("run.story"), story(run)));
  }

  function drawErrors() {
    const failed = failedTasks(run);
    if (!run.error && failed.length === 0) {
      replace(parts.errors);
      return;
    }
    replace(
      parts.errors,
      el(
        "section",
        { class: "errors", "aria-label": t("run.errors") },
        el("h2", {}, t("run.errors")),
        // The run's error mostly is that of a task, and then stands with it.
        run.error && !failed.some(([, record]) => record.error === run.error) ? block(run.error, "bad") : null,
        failed.map(([name, record]) =>
          el(
            "div",
            {},
            el("h3", {}, t("run.error_of", { task: name })),
            record.error ? block(record.error, "bad") : null,
            record.traceback ? fold(t("task.traceback"), block(record.traceback), true) : null,
            record.logs?.stderr ? fold(t("task.stderr"), block(record.logs.stderr), true) : null,
          ),
        ),
      ),
    );
  }

  function drawWheels() {
    const shown = JSON.stringify([run.wheel_generation, run.wheels]);
    if (drawnWheels === shown) return;
    drawnWheels = shown;
    replace(parts.wheels, runWheels(run));
  }

  function drawData() {
    const text = JSON.stringify(run, null, 2);
    const shown = JSON.stringify([run.params, run.workflow_yaml_sha256, run.workflow_yaml_bytes]);
    if (drawnData !== shown) {
      drawnData = shown;
      replace(
        parts.data,
        section(
          t("run.data"),
          el("h3", {}, t("run.params")),
          run.params_truncated
            ? el("p", { class: "quiet" }, t("run.params_truncated"))
            : isEmpty(run.params)
              ? el("p", { class: "quiet" }, t("none"))
              : value(run.params),
          run.workflow_yaml_sha256
            ? el(
                "p",
                { class: "quiet" },
                t("run.document"),
                " ",
                el("code", {}, run.workflow_yaml_sha256.slice(0, 16)),
                ` (${run.workflow_yaml_bytes} B)`,
              )
            : null,
          el(
            "details",
            { class: "raw" },
            el("summary", {}, t("run.raw")),
            copyButton(() => JSON.stringify(run, null, 2)),
            block(""),
          ),
        ),
      );
    }
    parts.data.querySelector(".raw pre").textContent = text;
  }

  open();
  const stopFleet = followFleet(() => {
    if (run) guarded(parts.story, drawStory);
  });
  return {
    update() {},
    close() {
      close();
      stopFleet();
      timeline.close();
    },
  };
}
