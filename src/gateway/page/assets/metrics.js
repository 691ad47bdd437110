// How the system does: what runs, what waits, what has ended.

import { el, replace } from "./dom.js";
import { followFigures } from "./figures.js";
import { serving } from "./fleet.js";
import { number, span } from "./format.js";
import { t } from "./i18n.js";
import { empty, guarded, problem, section, tableHead } from "./pieces.js";
import { to } from "./route.js";
import { Throughput } from "./chart.js";

export function metricsPage(place) {
  const tiles = el("div", { class: "tiles" });
  const notice = el("div");
  const chart = el("div");
  const queues = el("div");
  place.append(
    el("div", { class: "title" }, el("h1", {}, t("nav.metrics"))),
    notice,
    tiles,
    section(t("metrics.throughput"), chart),
    section(t("metrics.queues"), queues),
  );
  replace(tiles, el("p", { class: "quiet" }, t("loading")));
  const throughput = new Throughput(chart);
  const stop = followFigures((figures, error) => {
    replace(notice, error ? problem(error) : null);
    if (!figures) return;
    guarded(tiles, () => replace(tiles, tilesOf(figures)));
    guarded(queues, () => replace(queues, queueTable(figures)));
  });
  return {
    update() {},
    close() {
      stop();
      throughput.close();
    },
  };
}

function tilesOf(figures) {
  const runs = (status) => figures.one("pyoco_runs", { status });
  const today = (status) => figures.one("pyoco_runs_today_total", { status });
  const count = (name, value, href = null, isBad = false) =>
    tile(name, value === null ? "–" : number(value), { href, class: isBad ? "tile bad" : "tile" });
  const failed = today("FAILED");
  const alive = figures.one("pyoco_workers_alive_total");
  return [
    count("running", runs("RUNNING"), to("runs", "", { status: "RUNNING" })),
    count("waiting", runs("PENDING"), to("runs", "", { status: "PENDING" })),
    count("done_today", today("COMPLETED"), to("runs", "", { status: "COMPLETED" })),
    count("failed_today", failed, to("runs", "", { status: "FAILED" }), failed > 0),
    count("workers", alive, to("workers"), alive === 0),
    count("dlq", figures.one("pyoco_dlq_messages_total")),
    spanTile("wait_mean", figures, "pyoco_run_queue_wait_seconds"),
    spanTile("duration_mean", figures, "pyoco_run_duration_seconds"),
  ];
}

/** The mean of a histogram since the gateway's start. */
function spanTile(name, figures, histogram) {
  const count = figures.one(`${histogram}_count`);
  const sum = figures.one(`${histogram}_sum`);
  return tile(name, count ? span(sum / count) : "–", { class: "tile", title: t("metrics.since_start") });
}

function tile(name, value, props) {
  const text = [el("span", {}, t(`metrics.${name}`)), el("b", {}, value)];
  return el(props.href ? "a" : "div", { "data-tile": name, ...props }, text);
}

function queueTable(figures) {
  const depths = figures.all("pyoco_queue_depth");
  if (depths.length === 0) return empty(t("metrics.no_queues"), ["pyoco-worker --tags default"]);
  const row = ({ labels: { tag }, value }) => {
    const oldest = figures.one("pyoco_queue_oldest_age_seconds", { tag });
    const servers = serving(tag).length;
    return el(
      "tr",
      { "data-tag": tag },
      el("th", { scope: "row" }, el("a", { href: to("runs", "", { tag }) }, tag)),
      el("td", {}, number(value)),
      el("td", {}, number(figures.one("pyoco_queue_in_flight", { tag }) ?? 0)),
      el("td", {}, value > 0 && oldest ? span(oldest) : "–"),
      el(
        "td",
        {},
        servers > 0
          ? number(servers)
          : el("span", { class: "warning" }, t("metrics.nobody"), " ", el("code", {}, `pyoco-worker --tags ${tag}`)),
      ),
    );
  };
  const head = tableHead("metrics", ["tag", "depth", "in_flight", "oldest", "servers"]);
  return el("div", { class: "wide" }, el("table", {}, head, el("tbody", {}, depths.map(row))));
}
