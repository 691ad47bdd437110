// The wheels: what the registry has, who uses it, what was done; upload and delete.

import { el, replace } from "./dom.js";
import { followFleet, isAlive, fleetState, knownTags, workers } from "./fleet.js";
import { filterBar } from "./filter_bar.js";
import { number, size } from "./format.js";
import { t } from "./i18n.js";
import { empty, guarded, noMatch, problem } from "./pieces.js";
import { followRegistry } from "./registry.js";
import { here } from "./route.js";
import { askDelete } from "./wheel_delete.js";
import { historyPart } from "./wheel_history.js";
import { sorted, uses } from "./wheel_names.js";
import { uploadPart } from "./wheel_upload.js";
import { drawWheels } from "./wheels_table.js";
import { failedLink } from "./worker_wheels.js";

const UPLOAD = "pyoco-client wheel-upload --wheel-file dist/mypackage-1.0-py3-none-any.whl --tags default";
const WORKER = "pyoco-worker --tags default --wheel-sync";

export function wheelsPage(place) {
  const filter = filterBar("wheel", {
    search: t("wheels.search"),
    which: t("wheels.which"),
    choices: ["", "newest"].map((word) => [word, t(`wheels.show.${word || "all"}`)]),
  });
  const summary = el("p", { class: "quiet", id: "wheel-summary" });
  const notice = el("div");
  const table = el("div", { class: "table-place" });
  const history = historyPart();
  const upload = uploadPart(knownTags().sort(), () => registry.reload());
  place.append(
    el("div", { class: "title" }, el("h1", {}, t("nav.wheels"))),
    upload.node,
    filter.node,
    summary,
    notice,
    table,
    history.node,
  );
  let state = { loaded: false, wheels: [], problem: null, history: null, historyProblem: null };

  function rows() {
    const fleet = [...workers().values()];
    const arrived = new Map();
    for (const event of state.history ?? []) {
      const key = `${event.wheel_name} ${event.sha256_hex}`;
      if (event.action === "upload" && !arrived.has(key)) arrived.set(key, event);
    }
    return sorted(state.wheels).map((wheel) => ({
      ...wheel,
      use: uses(wheel, fleet),
      event: arrived.get(`${wheel.name} ${wheel.sha256_hex}`) ?? null,
    }));
  }

  function draw() {
    guarded(table, () => {
      const { query } = here();
      const all = rows();
      const shown = all.filter((one) => fits(one, query));
      table.hidden = shown.length === 0;
      replace(summary, state.loaded ? counts(all) : null);
      replace(
        notice,
        state.problem ? problem(state.problem, registry.reload) : null,
        !state.loaded && !state.problem ? el("p", { class: "quiet" }, t("loading")) : null,
        state.loaded && all.length === 0 ? empty(t("wheels.none"), [UPLOAD]) : null,
        all.length > 0 && shown.length === 0 ? noMatch(t("wheels.no_match"), "wheels") : null,
        fleetState().loaded ? nobody() : null,
      );
      drawWheels(table, shown, (name) => ask(all.find((one) => one.name === name)));
    });
    guarded(history.node, () => history.draw(state, registry.reload));
  }

  function ask(wheel) {
    const others = rows().filter((one) => one.package === wheel.package && one.name !== wheel.name);
    askDelete(place, wheel, others[0]?.version ?? null, registry.reload);
  }

  const registry = followRegistry((fresh) => {
    state = fresh;
    draw();
  });
  const stopFleet = followFleet(draw);
  draw();
  return {
    update(query) {
      filter.update(query);
      draw();
    },
    close() {
      registry.close();
      stopFleet();
      upload.close();
    },
  };
}

function fits(one, query) {
  const text = (query.get("q") ?? "").toLowerCase();
  const words = [one.package, one.name, ...one.tags];
  return (
    (query.get("show") !== "newest" || one.isNewest) &&
    (!text || words.some((word) => word.toLowerCase().includes(text)))
  );
}

function counts(all) {
  return [
    t("wheels.summary", {
      packages: number(new Set(all.map((one) => one.package)).size),
      wheels: number(all.length),
      size: size(all.reduce((sum, one) => sum + one.size_bytes, 0)),
    }),
    failedLink([...workers().values()]),
  ];
}

/** Wheels are of no use without a worker that takes them. */
function nobody() {
  const takes = [...workers().values()].some((one) => isAlive(one) && one.wheel_sync?.enabled);
  return takes ? null : empty(t("wheels.no_worker"), [WORKER]);
}
