// Starts the page, and shows the view that the URL names.

import { el, replace } from "./dom.js";
import { start as startEvents } from "./events.js";
import { startFleet } from "./fleet.js";
import { startHeader } from "./header.js";
import { language, t } from "./i18n.js";
import { metricsPage } from "./metrics.js";
import { problem } from "./pieces.js";
import { here, to } from "./route.js";
import { runPage } from "./run.js";
import { runsPage } from "./runs.js";
import { submitPage } from "./submit.js";
import { wheelsPage } from "./wheels.js";
import { workersPage } from "./workers.js";

/**
 * A view is a function of (place, {id, query}). It returns `{close(), update(query)?}`: what ends it,
 * and what follows a change of the settings alone.
 */
const VIEWS = {
  runs: runsPage,
  run: runPage,
  workers: workersPage,
  wheels: wheelsPage,
  metrics: metricsPage,
  submit: submitPage,
};

let shown = null;

function show(anew = false) {
  const { page, id, query } = here();
  const view = Object.hasOwn(VIEWS, page) ? VIEWS[page] : null;
  if (!anew && shown?.page === page && shown.id === id && shown.handle.update) {
    shown.handle.update(query);
    return;
  }
  const isMove = shown !== null && !anew;
  shown?.handle.close();
  document.documentElement.lang = language();
  document.title = view ? `${t(`nav.${page}`)} · Pyoco` : "Pyoco";
  const place = el("div", { class: `view view-${page}` });
  replace(document.getElementById("main"), place);
  shown = { page, id, handle: { close() {} } };
  try {
    shown.handle = view ? view(place, { id, query }) : nowhere(place);
  } catch (error) {
    console.error("the view failed", error);
    place.replaceChildren(problem(error));
  }
  if (isMove) {
    scrollTo(0, 0);
    document.getElementById("main").focus({ preventScroll: true });
  }
}

function nowhere(place) {
  place.append(el("h1", {}, t("nowhere")), el("p", {}, el("a", { href: to("runs") }, t("nav.runs"))));
  return { close() {} };
}

addEventListener("hashchange", () => show());
addEventListener("pyoco:language", () => show(true));
addEventListener("pyoco:key", () => {
  startEvents();
  show(true);
});
addEventListener("keydown", (event) => {
  const isTyping = event.target.closest?.("input, textarea, select");
  if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey && !event.altKey) {
    const search = document.querySelector("input[type=search]");
    if (search) {
      event.preventDefault();
      search.focus();
    }
  }
});

startHeader();
startFleet();
startEvents();
show();
