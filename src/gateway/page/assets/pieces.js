// Small parts that several pages show.

import { ApiError, keyHeader } from "./api.js";
import { announce, el } from "./dom.js";
import { t } from "./i18n.js";
import { to } from "./route.js";

// A shape beside the colour: not everybody sees the difference of colours.
const SHAPES = {
  PENDING: "○",
  RUNNING: "▶",
  CANCELLING: "◐",
  COMPLETED: "✓",
  SUCCEEDED: "✓",
  FAILED: "✕",
  CANCELLED: "⊘",
  IDLE: "○",
  STOPPED_GRACEFUL: "■",
  DISCONNECTED: "!",
  UNAVAILABLE: "!",
  disabled: "–",
  idle: "○",
  ok: "✓",
  error: "✕",
};

/** All run statuses, in the order in which counters are shown. */
export const STATUSES = ["PENDING", "RUNNING", "CANCELLING", "COMPLETED", "FAILED", "CANCELLED"];

export function isTerminal(status) {
  return status === "COMPLETED" || status === "FAILED" || status === "CANCELLED";
}

/** A status of a run, a task, a worker or the wheels of a worker. */
export function badge(status, kind = "run") {
  return el(
    "span",
    { class: `badge is-${String(status).toLowerCase()}`, title: status },
    el("span", { class: "shape", "aria-hidden": "true" }, SHAPES[status] ?? "?"),
    t(`${kind}.${status}`),
  );
}

/** A run id: enough of it to tell runs apart, the whole in the title. */
export function shortId(id) {
  return id.length > 13 ? id.slice(0, 8) : id;
}

export function runLink(id, text = shortId(id)) {
  return el("a", { href: to("run", id), title: id, class: "id" }, text);
}

export function workerLink(id) {
  return el("a", { href: to("workers", "", { q: id }), class: "id" }, id);
}

export function tags(list) {
  return el(
    "span",
    { class: "tags" },
    list.map((tag) => el("span", { class: "tag" }, tag)),
  );
}

/** Something that a run or a person wrote, with its line ends. */
export function block(text, kind = "") {
  return el("pre", { class: `block ${kind}`, tabindex: "0" }, text);
}

/** Any JSON value; a text is shown as it is. */
export function value(data) {
  return block(typeof data === "string" ? data : JSON.stringify(data, null, 2));
}

export function isEmpty(data) {
  return data === null || data === undefined || (typeof data === "object" && Object.keys(data).length === 0);
}

/** A button that copies what `text()` returns. */
export function copyButton(text, label = t("copy")) {
  const button = el("button", { type: "button", class: "small", onclick: copy }, label);
  async function copy() {
    try {
      await navigator.clipboard.writeText(text());
      button.textContent = t("copied");
      announce(t("copied"));
    } catch {
      button.textContent = t("copy.failed");
    }
    setTimeout(() => (button.textContent = label), 2000);
  }
  return button;
}

/** A text that opens. */
export function fold(title, content, open = false) {
  return el("details", { open }, el("summary", {}, title), content);
}

/** What has gone wrong with a part of the page, in words, and the way out. */
export function problem(error, again = null) {
  return el(
    "div",
    { class: "problem", role: "alert" },
    el("p", {}, el("strong", {}, headline(error)), " ", detail(error)),
    error?.body?.hint ? el("p", { class: "quiet" }, error.body.hint) : null,
    again ? el("button", { type: "button", class: "small", onclick: again }, t("again")) : null,
  );
}

function headline(error) {
  if (!(error instanceof ApiError)) return t("error.page");
  if (error.status === 0) return t("error.unreachable");
  if (error.isAboutKey) return t("error.key", { header: keyHeader() });
  if (error.status === 503) return t("error.unavailable");
  return t("error.answer", { status: error.status });
}

function detail(error) {
  if (!(error instanceof ApiError)) return String(error?.message ?? error);
  const { detail: said, reason } = error.body;
  const text = typeof said === "string" ? said : Array.isArray(said) ? said.map((one) => one.msg).join("; ") : "";
  return [text, reason].filter(Boolean).join(": ");
}

/** Nothing here, and what to do about it; `commands` can be copied. */
export function empty(text, commands = []) {
  return el(
    "div",
    { class: "empty" },
    el("p", {}, text),
    commands.map((command) =>
      el(
        "p",
        { class: "command" },
        el("code", {}, command),
        copyButton(() => command),
      ),
    ),
  );
}

/** Draws a part of the page; its fault leaves the others as they are. */
export function guarded(place, draw) {
  try {
    draw();
  } catch (error) {
    console.error("a part of the page failed", error);
    place.replaceChildren(problem(error));
  }
}

/** The values that a field suggests. */
export function suggestions(id, values) {
  const options = values.map((value) => el("option", { value }));
  return el("datalist", { id }, options);
}

/** The head of a table, its columns named by the texts `kind.…`; `more` stands behind them. */
export function tableHead(kind, names, ...more) {
  const heads = names.map((name) => el("th", { scope: "col" }, t(`${kind}.${name}`)));
  return el("thead", {}, el("tr", {}, heads, ...more));
}

/** What a filter that leaves nothing shows: that, and the way back to all of the page. */
export function noMatch(text, page) {
  return el("div", { class: "empty" }, el("p", {}, text), el("a", { class: "button", href: to(page) }, t("runs.clear")));
}

/** A named part of a page. */
export function section(title, ...children) {
  return el("section", {}, el("h2", {}, title), ...children);
}
