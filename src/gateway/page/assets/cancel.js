// Asks a run to end, with a reason. The story shows the result.

import { sendJson } from "./api.js";
import { el } from "./dom.js";
import { t } from "./i18n.js";
import { isTerminal, problem } from "./pieces.js";

/** `taken(snapshot)` gets the gateway's answer. The same nodes are used for the life of the view. */
export function cancelBox(id, taken) {
  const reason = el("input", { id: "cancel-reason", type: "text", maxlength: "300", autocomplete: "off" });
  const said = el("div");
  const button = el("button", { type: "submit", class: "danger" }, t("cancel.do"));
  const node = el(
    "details",
    { class: "cancel" },
    el("summary", {}, t("cancel.open")),
    el(
      "form",
      { onsubmit: send },
      el("label", { for: "cancel-reason" }, t("cancel.reason")),
      reason,
      button,
      el("p", { class: "quiet" }, t("cancel.help")),
      said,
    ),
  );

  async function send(event) {
    event.preventDefault();
    button.disabled = true;
    said.replaceChildren();
    try {
      taken(await sendJson("POST", `/runs/${encodeURIComponent(id)}/cancel`, { reason: reason.value.trim() || null }));
    } catch (error) {
      said.replaceChildren(problem(error));
    }
    button.disabled = false;
  }

  return {
    draw: (run) => (isTerminal(run.status) || run.status === "CANCELLING" ? null : node),
  };
}
