// The table of wheels: one row per file, the newest of each package first.

import { el, keyed, replace } from "./dom.js";
import { number, size } from "./format.js";
import { t } from "./i18n.js";
import { when } from "./moving.js";
import { fold, tableHead, tags, workerLink } from "./pieces.js";
import { who } from "./wheel_history.js";

const COLUMNS = ["package", "file", "tags", "uploaded", "used"];
/** Workers that are named at once; more of them open. */
const NAMED = 3;

/** `rows` are wheels with `use` (see `uses`) and `event`, their upload where the history knows it. */
export function drawWheels(place, rows, ask) {
  let body = place.querySelector("tbody");
  if (!body) {
    body = el("tbody");
    const last = el("th", { scope: "col" }, el("span", { class: "unseen" }, t("wheels.delete")));
    replace(place, el("table", { class: "wheels stacked" }, tableHead("wheels.column", COLUMNS, last), body));
  }
  keyed(
    body,
    rows,
    (one) => one.name,
    (one) => row(one, ask),
  );
}

function row(one, ask) {
  const cell = (name, ...content) =>
    el("td", { class: `of-${name}`, "data-label": t(`wheels.column.${name}`) }, ...content);
  return el(
    "tr",
    { "data-wheel": one.name, class: one.isNewest ? "is-newest" : "is-older" },
    cell("package", el("strong", {}, one.package), " ", one.version, " ", mark(one)),
    cell("file", el("code", {}, one.name), el("span", { class: "quiet" }, ` ${size(one.size_bytes)}`)),
    cell("tags", one.tags.length ? tags(one.tags) : el("span", { class: "quiet" }, t("wheels.everybody"))),
    cell("uploaded", when(one.modified), one.event ? el("p", { class: "quiet" }, who(one.event)) : null),
    cell("used", used(one)),
    el("td", { class: "of-delete" }, deleteButton(one.name, ask)),
  );
}

function deleteButton(name, ask) {
  const label = t("wheels.delete_it", { name });
  const props = { type: "button", class: "small", "aria-label": label, onclick: () => ask(name) };
  return el("button", props, t("wheels.delete"));
}

function mark(one) {
  return one.isNewest
    ? el("span", { class: "mark" }, t("wheels.newest"))
    : el("span", { class: "mark older" }, t("wheels.older"));
}

function used({ use, isNewest }) {
  const links = use.by.map((id) => el("li", {}, workerLink(id)));
  const count = t("wheels.on", { n: `${use.atLeast ? "≥ " : ""}${number(use.by.length)}` });
  return [
    links.length > NAMED
      ? fold(count, el("ul", { class: "names" }, links))
      : links.length
        ? el("ul", { class: "names" }, links)
        : nobody(use, isNewest),
    use.skipped.length
      ? fold(
          el("span", { class: "warning" }, t("wheels.skipped", { n: number(use.skipped.length) })),
          el(
            "ul",
            { class: "names" },
            use.skipped.map(({ worker, reason }) => el("li", {}, workerLink(worker), " ", reason)),
          ),
        )
      : null,
  ];
}

/** An older version that no worker has is as it should be. */
function nobody(use, isNewest) {
  if (use.atLeast) return el("span", { class: "quiet" }, "?");
  if (!isNewest) return el("span", { class: "quiet" }, "–");
  if (use.meant === 0) return el("span", { class: "warning" }, t("wheels.meant_for_nobody"));
  return use.skipped.length ? null : el("span", { class: "warning" }, t("wheels.not_yet"));
}
