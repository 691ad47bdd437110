// When each task ran, as bars over time; the wait for a worker comes first, in a part of its own.

import { el, replace, svg } from "./dom.js";
import { span } from "./format.js";
import { t } from "./i18n.js";
import { isTerminal, section } from "./pieces.js";
import { LETTER, cut, measure, rows, ticks } from "./timeline_scale.js";

const ROW = 26;
const BAR = 14;
const AXIS = 24;
/** Tasks that are drawn; the table has them all. */
const MOST = 200;

export class Timeline {
  constructor() {
    this.run = null;
    this.place = el("div", { class: "timeline" });
    this.resized = new ResizeObserver(() => this.redraw());
    this.timer = setInterval(() => {
      if (this.run && !isTerminal(this.run.status)) this.redraw();
    }, 1000);
  }

  close() {
    clearInterval(this.timer);
    this.resized.disconnect();
  }

  draw(part, run) {
    this.run = run;
    if (!part.contains(this.place)) {
      replace(part, section(t("timeline.title"), this.place));
      this.resized.observe(this.place);
    }
    this.redraw();
  }

  redraw() {
    const width = this.place.clientWidth;
    if (!this.run || width === 0) return;
    const tasks = rows(this.run);
    const shown = tasks.slice(0, MOST);
    replace(
      this.place,
      drawing(this.run, shown, width),
      tasks.length > MOST ? el("p", { class: "quiet" }, t("timeline.more", { n: tasks.length - MOST })) : null,
    );
  }
}

function drawing(run, tasks, width) {
  const scale = measure(run, width);
  const height = AXIS + ROW * (tasks.length + 1) + 4;
  const label = t("timeline.label", { n: tasks.length });
  return svg(
    "svg",
    { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label },
    axis(scale, height),
    waitRow(run, scale),
    tasks.map((task, at) => taskRow(task, at + 1, scale)),
  );
}

function axis(scale, height) {
  const { perSecond, zero, width } = scale;
  if (perSecond === 0) return [];
  const lines = [];
  for (const at of ticks(scale)) {
    const x = zero + at * perSecond;
    lines.push(svg("line", { x1: x, x2: x, y1: AXIS - 6, y2: height, class: "grid" }));
    if (x < width - 20) lines.push(svg("text", { x: x + 3, y: AXIS - 10, class: "tick" }, at === 0 ? "0" : span(at)));
  }
  return lines;
}

function waitRow(run, scale) {
  const { names, zero, waited, isBroken } = scale;
  const y = AXIS + (ROW - BAR) / 2;
  const width = Math.max(2, zero - names);
  const text = span(waited);
  const middle = names + width / 2;
  const isRoomy = width > text.length * LETTER + 8;
  return svg(
    "g",
    { class: "row" },
    svg("text", { x: 0, y: y + 11, class: "name" }, t("timeline.wait")),
    svg(
      "rect",
      { x: names, y, width, height: BAR, rx: 3, class: width < 12 ? "bar is-wait short" : "bar is-wait" },
      svg("title", {}, `${t("timeline.wait")}: ${text}`),
    ),
    isBroken
      ? svg("path", { d: `M${middle - 6} ${y - 2} l4 ${BAR + 4} m4 ${-BAR - 4} l4 ${BAR + 4}`, class: "break" })
      : null,
    svg("text", { x: isRoomy && !isBroken ? names + 5 : zero + 6, y: y + 11, class: "span" }, text),
  );
}

function taskRow({ name, state, from, to }, at, scale) {
  const top = AXIS + ROW * at;
  const y = top + (ROW - BAR) / 2;
  const label = svg("text", { x: 0, y: y + 11, class: "name" }, cut(name, scale.names), svg("title", {}, name));
  if (from === null) {
    return svg(
      "g",
      { class: "row" },
      label,
      svg("text", { x: scale.zero + 6, y: y + 11, class: "span" }, t(`task.${state}`)),
    );
  }
  const end = to ?? scale.end;
  const x = Math.min(scale.x(from), scale.width - 11);
  const width = Math.max(3, Math.min(scale.x(end), scale.width - 8) - x);
  const text = span(end - from);
  const room = text.length * LETTER + 8;
  // Beside the bar, or within it when there is no room beside it.
  const beside = x + width + 5 + room < scale.width ? x + width + 5 : Math.max(scale.names, x - room);
  const isInside = width > room;
  return svg(
    "g",
    { class: "row" },
    label,
    svg(
      "rect",
      { x, y, width, height: BAR, rx: 3, class: `bar is-${state.toLowerCase()}` },
      svg("title", {}, `${name}: ${t(`task.${state}`)}, ${text}`),
    ),
    svg("text", { x: isInside ? x + 5 : beside, y: y + 11, class: isInside ? "span inside" : "span" }, text),
  );
}
