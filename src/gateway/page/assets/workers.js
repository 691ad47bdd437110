// The workers: who is there, what they execute, how they do.

import { sendJson } from "./api.js";
import { el, keyed, replace } from "./dom.js";
import { changed, fleetState, followFleet, isAlive, loadFleet, workers } from "./fleet.js";
import { filterBar } from "./filter_bar.js";
import { number } from "./format.js";
import { t } from "./i18n.js";
import { when } from "./moving.js";
import { badge, empty, guarded, noMatch, problem, runLink, tags } from "./pieces.js";
import { here } from "./route.js";
import { failedLink, hasFailed, wheelBadge, wheelLines } from "./worker_wheels.js";

const ORDER = ["UNAVAILABLE", "RUNNING", "IDLE", "DISCONNECTED", "STOPPED_GRACEFUL"];

export function workersPage(place) {
  const failures = new Map();
  const filter = filterBar("worker", {
    search: t("workers.search"),
    which: t("workers.which"),
    choices: ["", "alive", "hidden", "failed"].map((word) => [word, t(`workers.show.${word || "all"}`)]),
  });
  const summary = el("p", { class: "quiet", id: "worker-summary" });
  const notice = el("div");
  const list = el("div", { class: "cards" });
  place.append(
    el("div", { class: "title" }, el("h1", {}, t("nav.workers"))),
    filter.node,
    summary,
    notice,
    list,
  );

  function draw() {
    guarded(list, () => {
      const { loaded, problem: trouble } = fleetState();
      const { query } = here();
      const all = [...workers().values()];
      const shown = all.filter((one) => fits(one, query)).sort(before);
      replace(
        notice,
        trouble ? problem(trouble, loadFleet) : null,
        !loaded && !trouble ? el("p", { class: "quiet" }, t("loading")) : null,
        loaded && shown.length === 0 ? nobody(all) : null,
      );
      replace(summary, loaded ? counts(all) : null);
      keyed(
        list,
        shown,
        (one) => one.worker_id,
        (one) => card(one, failures.get(one.worker_id), setHidden),
        sign,
      );
    });
  }

  /** The time of the last sign of life ticks by itself; it alone draws a card anew only when it matters. */
  function sign(one) {
    const { heartbeat_at: _, last_heartbeat_at: __, updated_at: ___, ...shown } = one;
    return JSON.stringify([shown, String(failures.get(one.worker_id) ?? "")]);
  }

  async function setHidden(id, hidden) {
    failures.delete(id);
    try {
      await sendJson("PATCH", `/workers/${encodeURIComponent(id)}`, { hidden });
      changed(id, { hidden });
    } catch (error) {
      failures.set(id, error);
      draw();
    }
  }

  const stop = followFleet(draw);
  draw();
  return {
    update(query) {
      filter.update(query);
      draw();
    },
    close: stop,
  };
}

function fits(one, query) {
  const show = query.get("show") ?? "";
  const text = (query.get("q") ?? "").toLowerCase();
  const words = [one.worker_id, one.hostname ?? "", ...one.tags];
  return (
    // A link to a worker finds it also when it is hidden, and so is one that is in trouble.
    (show === "hidden" ? one.hidden : !one.hidden || show === "failed" || query.get("q") === one.worker_id) &&
    (show !== "alive" || isAlive(one)) &&
    (show !== "failed" || hasFailed(one)) &&
    (!text || words.some((word) => word.toLowerCase().includes(text)))
  );
}

function counts(all) {
  return [
    t("workers.summary", {
      alive: number(all.filter(isAlive).length),
      all: number(all.length),
      hidden: number(all.filter((one) => one.hidden).length),
    }),
    failedLink(all),
  ];
}

function before(a, b) {
  return ORDER.indexOf(a.state) - ORDER.indexOf(b.state) || (a.worker_id < b.worker_id ? -1 : 1);
}

function nobody(all) {
  if (all.length === 0) return empty(t("workers.none"), ["pyoco-worker --tags default"]);
  return noMatch(t("workers.no_match"), "workers");
}

function card(one, failure, setHidden) {
  const line = (name, ...content) => [el("dt", {}, t(`workers.${name}`)), el("dd", {}, ...content)];
  const current = one.current_run_ids?.length ? one.current_run_ids : one.current_run_id ? [one.current_run_id] : [];
  return el(
    "article",
    {
      class: `card worker is-${one.state.toLowerCase()}${hasFailed(one) ? " has-failed" : ""}`,
      "data-worker": one.worker_id,
      "aria-label": one.worker_id,
    },
    el("div", { class: "card-head" }, el("h2", {}, one.worker_id), wheelBadge(one), badge(one.state, "worker")),
    el(
      "dl",
      {},
      one.state === "UNAVAILABLE"
        ? line(
            "unavailable",
            el("p", { class: "warning" }, one.unavailable_reason ?? ""),
            when(one.unavailable_since ?? one.updated_at),
          )
        : null,
      line("tags", tags(one.tags)),
      line("seen", when(one.last_seen_at ?? one.heartbeat_at)),
      line(
        "runs",
        current.length ? current.map((id) => [runLink(id), " "]) : "–",
        one.concurrency ? el("span", { class: "quiet" }, ` ${current.length}/${one.concurrency}`) : null,
      ),
      one.last_run_id
        ? line(
            "last",
            runLink(one.last_run_id),
            " ",
            one.last_run_status ? badge(one.last_run_status) : null,
            " ",
            when(one.last_run_finished_at),
          )
        : null,
      one.hostname
        ? line("host", one.hostname, one.pid ? ` · pid ${one.pid}` : "", one.version ? ` · ${one.version}` : "")
        : null,
      one.stopped_at ? line("stopped", when(one.stopped_at), one.stop_reason ? ` (${one.stop_reason})` : "") : null,
      python(one, line),
      wheelLines(one, line),
    ),
    failure ? problem(failure) : null,
    el(
      "button",
      { type: "button", class: "small", onclick: () => setHidden(one.worker_id, !one.hidden) },
      t(one.hidden ? "workers.unhide" : "workers.hide"),
    ),
  );
}

function python({ python: state }, line) {
  if (!state) return null;
  const versions = [state.python ? `Python ${state.python}` : "", state.pyoco ? `pyoco ${state.pyoco}` : ""]
    .filter(Boolean)
    .join(", ");
  return line(
    "python",
    t(`python.${state.state}`),
    versions ? ` (${versions})` : "",
    state.last_error ? el("p", { class: "warning" }, state.last_error) : null,
  );
}
