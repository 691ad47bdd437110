// The wheels that a run has run with.

import { el } from "./dom.js";
import { t } from "./i18n.js";
import { section } from "./pieces.js";
import { to } from "./route.js";

export function runWheels({ wheel_generation: generation, wheels }) {
  if (!generation) return null;
  const list = wheels ?? [];
  return section(
    t("nav.wheels"),
    el("p", {}, t("run.generation"), " ", el("code", { class: "generation" }, generation)),
    list.length === 0 ? el("p", { class: "quiet" }, t("run.no_wheels")) : null,
    el(
      "ul",
      { class: "names" },
      list.map((one) =>
        el(
          "li",
          { "data-wheel": one.wheel_name },
          el("a", { href: to("wheels", "", { q: one.package_name }) }, el("strong", {}, one.package_name)),
          ` ${one.package_version} `,
          el("code", { class: "quiet" }, one.wheel_name),
          " ",
          el("code", { class: "quiet", title: `SHA-256 ${one.sha256}` }, one.sha256.slice(0, 12)),
        ),
      ),
    ),
  );
}
