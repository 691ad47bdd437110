// Asks before a wheel is deleted, and says what that means.

import { remove } from "./api.js";
import { announce, el } from "./dom.js";
import { number } from "./format.js";
import { t } from "./i18n.js";
import { problem } from "./pieces.js";

/** Opens the question within `place`. `next` is the version that its workers get then, or null. */
export function askDelete(place, wheel, next, done) {
  const said = el("div");
  const yes = el("button", { type: "button", class: "danger", onclick: send }, t("wheels.delete_do"));
  const no = el("button", { type: "button", onclick: () => dialog.close() }, t("wheels.delete_not"));
  const dialog = el(
    "dialog",
    { "aria-labelledby": "delete-title", onclose: () => dialog.remove() },
    el("h2", { id: "delete-title" }, t("wheels.delete_title")),
    el("p", {}, el("code", {}, wheel.name)),
    el("p", {}, t("wheels.delete_used", { n: number(wheel.use.by.length) })),
    wheel.use.by.length
      ? el("p", {}, next ? t("wheels.delete_next", { version: next }) : t("wheels.delete_none"))
      : null,
    el("p", { class: "quiet" }, t("wheels.delete_help")),
    said,
    el("div", { class: "buttons" }, yes, no),
  );

  async function send() {
    yes.disabled = true;
    said.replaceChildren();
    try {
      await remove(`/wheels/${encodeURIComponent(wheel.name)}`);
      announce(t("wheels.deleted", { name: wheel.name }));
      dialog.close();
      // The row with the button is about to go.
      document.getElementById("main").focus({ preventScroll: true });
    } catch (error) {
      said.replaceChildren(problem(error));
      yes.disabled = false;
    }
    done();
  }

  place.append(dialog);
  dialog.showModal();
  no.focus();
}
