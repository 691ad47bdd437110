// The filters of the list: a form whose state is the URL.

import { el } from "./dom.js";
import { now } from "./format.js";
import { workers } from "./fleet.js";
import { t } from "./i18n.js";
import { go, to, withQuery } from "./route.js";

const FIELDS = ["q", "flow", "tag", "worker"];
/** Spans of time that can be chosen, in seconds. */
const SPANS = { "15m": 900, "1h": 3600, "24h": 86_400, "7d": 604_800 };
/** Typing is over after this pause. */
const TYPING_MS = 300;

/** What the list is limited to, by the URL. */
export function limits(query) {
  const of = (name) => query.get(name) ?? "";
  return {
    status: of("status"),
    q: of("q"),
    flow: of("flow"),
    tag: of("tag"),
    worker: of("worker"),
    span: Object.hasOwn(SPANS, of("since")) ? SPANS[of("since")] : null,
    cursor: of("cursor"),
  };
}

export function isFiltered(query) {
  return ["status", "since", ...FIELDS].some((name) => query.get(name));
}

/** Whether a run is within the limits: the gateway's rules, for runs that come as events. */
export function fits(run, { status, q, flow, tag, worker, span }) {
  const text = q.toLowerCase();
  const words = [run.run_id, run.flow_name, run.tag, ...(run.tags ?? []), run.worker_id ?? "", run.error ?? ""];
  return (
    (!status || run.status === status) &&
    (!flow || run.flow_name === flow) &&
    (!tag || run.tag === tag) &&
    (!worker || run.worker_id === worker) &&
    (!span || run.updated_at > now() - span) &&
    (!text || words.some((word) => word.toLowerCase().includes(text)))
  );
}

/** The limits as a query of `GET /runs`. */
export function asQuery({ span, cursor, ...rest }, limit) {
  const query = new URLSearchParams({ limit, cursor });
  for (const [name, value] of Object.entries(rest)) if (value) query.set(name, value);
  if (span) query.set("updated_after", String(now() - span));
  return query;
}

export function filterForm(query) {
  let timer = null;
  const typed = () => {
    clearTimeout(timer);
    timer = setTimeout(apply, TYPING_MS);
  };
  const apply = () => {
    clearTimeout(timer);
    const changes = { cursor: "", since: span.value };
    for (const name of FIELDS) changes[name] = inputs[name].value.trim();
    go(withQuery(changes), true);
  };
  const inputs = {};
  const field = (name, type = "text") => {
    inputs[name] = el("input", {
      type,
      id: `filter-${name}`,
      name,
      value: query.get(name) ?? "",
      autocomplete: "off",
      spellcheck: "false",
      list: name === "worker" || name === "tag" ? `known-${name}` : null,
      oninput: typed,
    });
    return el(
      "label",
      { class: name === "q" ? null : "of-more" },
      el("span", {}, t(`runs.filter.${name}`)),
      inputs[name],
    );
  };
  const option = (value) =>
    el("option", { value, selected: value === (query.get("since") ?? "") }, t(`runs.since.${value || "any"}`));
  const span = el("select", { id: "filter-since", onchange: apply }, ["", ...Object.keys(SPANS)].map(option));
  const known = (name, values) =>
    el(
      "datalist",
      { id: `known-${name}` },
      values.map((value) => el("option", { value })),
    );
  // On a small screen only the search is there at first.
  const isOpen = ["since", ...FIELDS].some((name) => name !== "q" && query.get(name));
  const more = el(
    "button",
    { type: "button", class: "more", "aria-expanded": String(isOpen), onclick: unfold },
    t("runs.more"),
  );
  function unfold() {
    more.setAttribute("aria-expanded", String(node.classList.toggle("is-open")));
  }
  const node = el(
    "form",
    {
      class: isOpen ? "filters is-open" : "filters",
      role: "search",
      onsubmit: (event) => (event.preventDefault(), apply()),
    },
    field("q", "search"),
    more,
    field("flow"),
    field("tag"),
    field("worker"),
    el("label", { class: "of-more" }, el("span", {}, t("runs.filter.since")), span),
    el("a", { class: "button of-more", href: to("runs") }, t("runs.clear")),
    known("worker", [...workers().keys()]),
    known("tag", [...new Set([...workers().values()].flatMap((one) => one.tags))]),
  );
  return {
    node,
    /** Follows the URL, but never what is being typed. */
    update(query) {
      for (const name of FIELDS) {
        if (inputs[name] !== document.activeElement) inputs[name].value = query.get(name) ?? "";
      }
      span.value = query.get("since") ?? "";
    },
    close: () => clearTimeout(timer),
  };
}
