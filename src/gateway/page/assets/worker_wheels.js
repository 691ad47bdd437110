// What a worker has made of the wheels: on its card, and at a glance.

import { el } from "./dom.js";
import { isAlive } from "./fleet.js";
import { number } from "./format.js";
import { t } from "./i18n.js";
import { when } from "./moving.js";
import { badge, block, fold } from "./pieces.js";
import { to } from "./route.js";
import { LISTED } from "./wheel_names.js";

/** Whether a living worker goes on with old wheels because the new ones failed. */
export function hasFailed(one) {
  return isAlive(one) && Boolean(one.wheel_sync?.enabled) && one.wheel_sync.last_result === "error";
}

/** For the head of the card. */
export function wheelBadge(one) {
  return hasFailed(one) ? failure("span", { class: "badge is-error wheels-failed" }, t("workers.wheels_failed")) : null;
}

function failure(tag, props, text) {
  return el(tag, props, el("span", { class: "shape", "aria-hidden": "true" }, "✕"), text);
}

/** The link from here to all wheels that failed on a worker. */
export function failedLink(all) {
  const failed = all.filter(hasFailed).length;
  if (failed === 0) return null;
  const props = { class: "badge is-error", href: to("workers", "", { show: "failed" }) };
  return [" · ", failure("a", props, t("workers.failed", { n: number(failed) }))];
}

/** Lines of the card. */
export function wheelLines({ wheel_sync: sync }, line) {
  if (!sync) return null;
  if (!sync.enabled) return line("wheels", badge("disabled", "sync"));
  const installed = sync.installed_wheels ?? [];
  const skipped = sync.skipped_incompatible ?? [];
  return line(
    "wheels",
    badge(sync.last_result, "sync"),
    sync.generation ? [" ", el("code", { title: t("run.generation") }, sync.generation)] : null,
    sync.last_error ? block(sync.last_error, "bad") : null,
    times(sync),
    changes(sync),
    installed.length
      ? fold(
          t("workers.installed", { n: `${installed.length < LISTED ? "" : "≥ "}${number(installed.length)}` }),
          names(installed),
        )
      : el("p", { class: "quiet" }, t("workers.installed_none")),
    skipped.length
      ? fold(
          el("span", { class: "warning" }, t("workers.skipped", { n: number(sync.skipped_incompatible_count) })),
          names(skipped, (one) => one.reason),
        )
      : null,
  );
}

function times(sync) {
  const parts = [
    ["attempt", sync.last_attempt_at],
    ["success", sync.last_success_at],
    ["synced", sync.last_synced_at],
  ];
  return el(
    "ul",
    { class: "facts quiet" },
    parts.map(([name, at]) => el("li", {}, t(`sync.${name}`), " ", when(at))),
  );
}

function changes(sync) {
  const one = (name, count, list) =>
    count ? fold(t(`sync.${name}`, { n: number(count) }), names(list.map((wheel) => ({ wheel_name: wheel })))) : null;
  return [
    one("updated", sync.updated_count, sync.updated_wheels ?? []),
    one("removed", sync.removed_count, sync.removed_wheels ?? []),
  ];
}

/** A list of wheels, with what is to be said of each. */
function names(list, more = () => "") {
  return el(
    "ul",
    { class: "names" },
    list.map((one) =>
      el(
        "li",
        {},
        one.package_name ? [el("strong", {}, one.package_name), " ", one.package_version, " "] : null,
        el("code", { class: "quiet" }, one.wheel_name),
        more(one) ? el("p", { class: "warning" }, more(one)) : null,
      ),
    ),
  );
}
