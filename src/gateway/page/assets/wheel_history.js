// What was uploaded and deleted, by whom and from where.

import { el, replace } from "./dom.js";
import { moment, number, size } from "./format.js";
import { t } from "./i18n.js";
import { when } from "./moving.js";
import { problem, section, tableHead, tags } from "./pieces.js";

const COLUMNS = ["when", "what", "wheel", "who", "from"];
/** Events that are shown at once. */
const FIRST = 20;
const SHAPES = { upload: "↑", delete: "✕" };

/** The part of the page; `draw(state)` shows what `followRegistry` tells. */
export function historyPart() {
  const place = el("div", { class: "history" });
  let showsAll = false;
  let drawn = null;

  function draw(state, again) {
    const { history, historyProblem: trouble } = state;
    const sign = JSON.stringify([history?.length, history?.[0]?.event_id, trouble?.status, trouble?.message, showsAll]);
    if (sign === drawn) return;
    drawn = sign;
    if (trouble?.isAboutRole) replace(place, forbidden(trouble));
    else if (trouble && !history) replace(place, problem(trouble, again));
    else if (!history) replace(place, el("p", { class: "quiet" }, t("loading")));
    else if (history.length === 0) replace(place, el("p", { class: "quiet" }, t("history.none")));
    else replace(place, table(history), more(history, state, again));
  }

  function table(history) {
    const shown = showsAll ? history : history.slice(0, FIRST);
    return el("table", { class: "stacked" }, tableHead("history.column", COLUMNS), el("tbody", {}, shown.map(row)));
  }

  function more(history, state, again) {
    if (showsAll || history.length <= FIRST) return null;
    const all = () => {
      showsAll = true;
      draw(state, again);
    };
    return el("button", { type: "button", onclick: all }, t("history.all", { n: number(history.length) }));
  }

  return { node: section(t("history.title"), place), draw };
}

function forbidden(error) {
  return [
    el("p", {}, t("history.forbidden")),
    el("p", { class: "quiet" }, [error.body.detail, error.body.hint].filter(Boolean).join("; ")),
  ];
}

function row(event) {
  const cell = (name, ...content) =>
    el("td", { class: `of-${name}`, "data-label": t(`history.column.${name}`) }, ...content);
  return el(
    "tr",
    { "data-event": event.event_id },
    cell("when", when(event.occurred_at)),
    cell(
      "what",
      el("span", { class: "shape", "aria-hidden": "true" }, SHAPES[event.action] ?? "?"),
      " ",
      t(`history.${event.action}`),
    ),
    cell(
      "wheel",
      el("code", {}, event.wheel_name),
      " ",
      event.size_bytes === null ? null : el("span", { class: "quiet" }, size(event.size_bytes)),
      " ",
      tags(event.tags),
    ),
    cell("who", key(event)),
    cell("from", el("span", { title: event.source.user_agent ?? "" }, from(event))),
  );
}

/** Who did it and from where, in short. */
export function who(event) {
  const by = event.actor.api_key_id;
  return el(
    "span",
    { title: moment(event.occurred_at) },
    by ? [t("history.by"), " ", el("code", {}, by.slice(0, 8)), " "] : null,
    t("history.from", { address: from(event) }),
  );
}

function key({ actor }) {
  if (!actor.api_key_id) return el("span", { class: "quiet" }, t("history.nobody"));
  return [
    el("code", { title: actor.api_key_id }, actor.api_key_id.slice(0, 8)),
    actor.tenant_id ? ` ${actor.tenant_id}` : "",
  ];
}

/** The other end of the connection, and behind a proxy whom the request names. */
function from({ source }) {
  const named = source.x_forwarded_for ?? source.x_real_ip;
  return [source.remote_addr ?? "–", named ? ` (${named})` : ""].join("");
}
