// The list of runs: counters, filters, the table, pages.

import { el, replace } from "./dom.js";
import { followFigures } from "./figures.js";
import { number } from "./format.js";
import { t } from "./i18n.js";
import { STATUSES, badge, empty, guarded, noMatch, problem } from "./pieces.js";
import { here, to, withQuery } from "./route.js";
import { filterForm } from "./runs_filter.js";
import { isFiltered, limits } from "./runs_limits.js";
import { MOST_MOVED, RunsList } from "./runs_list.js";
import { drawTable } from "./runs_table.js";

export function runsPage(place, { query }) {
  const counters = el("nav", { class: "counters", "aria-label": t("runs.counters") });
  const filters = filterForm(query);
  const table = el("div", { class: "table-place" });
  const pager = el("nav", { class: "pager", "aria-label": t("runs.pages") });
  place.append(
    el(
      "div",
      { class: "title" },
      el("h1", {}, t("nav.runs")),
      el("a", { class: "button", href: to("submit") }, t("runs.submit")),
    ),
    counters,
    filters.node,
    table,
    pager,
  );

  const list = new RunsList(limits(query), draw);
  let figures = null;
  const stopFigures = followFigures((fresh) => {
    figures = fresh ?? figures;
    guarded(counters, drawCounters);
  });

  function drawCounters() {
    const chosen = here().query.get("status") ?? "";
    const count = (status) => figures?.one("pyoco_runs", { status }) ?? null;
    const all = figures ? STATUSES.reduce((sum, status) => sum + (count(status) ?? 0), 0) : null;
    const link = (status, label, amount) =>
      el(
        "a",
        {
          href: withQuery({ status, cursor: "" }),
          "aria-current": status === chosen ? "true" : null,
          "data-status": status || "ALL",
        },
        label,
        el("b", {}, amount === null ? "–" : number(amount)),
      );
    replace(
      counters,
      link("", el("span", { class: "badge" }, t("runs.all")), all),
      STATUSES.map((status) => link(status, badge(status), count(status))),
    );
  }

  function draw() {
    guarded(table, () => {
      const { runs, error, isLoaded } = list;
      const { query } = here();
      const trouble = error ? problem(error, () => list.load()) : null;
      if (error && runs.length === 0) replace(table, trouble);
      else if (!isLoaded) replace(table, el("p", { class: "quiet" }, t("loading")));
      else if (runs.length === 0) replace(table, nothing(query));
      else drawTable(table, runs, query, trouble);
    });
    guarded(pager, drawPager);
  }

  function nothing(query) {
    if (isFiltered(query) || query.get("cursor")) return noMatch(t("runs.no_match"), "runs");
    return empty(t("runs.none"), [
      "pyoco-server up --with-nats --with-worker",
      "pyoco-client submit-yaml --workflow-file examples/hello/flow.yaml --flow-name hello --tag default",
    ]);
  }

  function drawPager() {
    const isFirst = !here().query.get("cursor");
    const waiting = list.changesBefore;
    replace(
      pager,
      isFirst ? null : el("a", { class: "button", href: withQuery({ cursor: "" }) }, t("runs.first")),
      waiting ? el("span", { class: "quiet" }, t("runs.newer", { n: number(waiting) + (waiting < MOST_MOVED ? "" : "+") })) : null,
      el("span", { class: "quiet" }, list.isLoaded ? t("runs.shown", { n: number(list.runs.length) }) : ""),
      list.next
        ? el("a", { class: "button", id: "next-page", href: withQuery({ cursor: list.next }) }, t("runs.next"))
        : null,
    );
  }

  drawCounters();
  draw();
  list.start();
  return {
    update(query) {
      filters.update(query);
      drawCounters();
      list.change(limits(query));
    },
    close() {
      stopFigures();
      filters.close();
      list.close();
    },
  };
}
