// The filters of the list: a form whose state is the URL.

import { el } from "./dom.js";
import { knownTags, workers } from "./fleet.js";
import { t } from "./i18n.js";
import { suggestions } from "./pieces.js";
import { go, to, withQuery } from "./route.js";
import { FIELDS, SPANS } from "./runs_limits.js";

/** Typing is over after this pause. */
const TYPING_MS = 300;

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
    suggestions("known-worker", [...workers().keys()]),
    suggestions("known-tag", knownTags()),
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
