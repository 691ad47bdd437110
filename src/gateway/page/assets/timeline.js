// When each task ran, as bars over time; the wait for a worker comes first, in a part of its own.

import { el, replace, svg } from "./dom.js";
import { now, span } from "./format.js";
import { t } from "./i18n.js";
import { isTerminal, section } from "./pieces.js";

const ROW = 26;
const BAR = 14;
const AXIS = 24;
/** Tasks that are drawn; the table has them all. */
const MOST = 200;
/** A wait that is longer than this part of the run is drawn shorter than it was, with a break. */
const WAIT_SHARE = 0.2;
const LETTER = 7;

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

/** Tasks in the order in which they began; those that have not begun come last. */
function rows(run) {
  const records = run.task_records ?? {};
  const tasks = Object.entries(run.tasks ?? {}).map(([name, state]) => ({ name, state, ...times(records[name]) }));
  return tasks.sort((a, b) => (a.from ?? Infinity) - (b.from ?? Infinity) || 0);
}

function times(record) {
  return { from: record?.started_at ?? null, to: record?.ended_at ?? null };
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

/** Where a time stands: labels on the left, then the wait, then the run. */
function measure(run, width) {
  const names = Math.min(190, Math.max(90, width * 0.28));
  const end = run.end_time ?? now();
  const start = run.start_time ?? end;
  const submitted = Math.min(run.submitted_at ?? start, start);
  const ran = Math.max(end - start, 0.001);
  const waited = start - submitted;
  const room = width - names - 8;
  const share = run.start_time ? Math.min(waited / (waited + ran), WAIT_SHARE) : 1;
  const isBroken = run.start_time !== null && run.start_time !== undefined && waited / (waited + ran) > WAIT_SHARE;
  const zero = names + room * share;
  const perSecond = (room * (1 - share)) / ran;
  return {
    names,
    end,
    start,
    submitted,
    ran,
    waited,
    zero,
    isBroken,
    width,
    perSecond,
    x: (time) => zero + Math.max(0, time - start) * perSecond,
  };
}

function axis({ ran, perSecond, zero, width }, height) {
  if (perSecond === 0) return [];
  const steps = Math.max(1, Math.floor((width - zero) / 90));
  const step = nice(ran / steps);
  const lines = [];
  for (let at = 0; at <= ran * 1.0001; at += step) {
    const x = zero + at * perSecond;
    lines.push(svg("line", { x1: x, x2: x, y1: AXIS - 6, y2: height, class: "grid" }));
    if (x < width - 20) lines.push(svg("text", { x: x + 3, y: AXIS - 10, class: "tick" }, at === 0 ? "0" : span(at)));
  }
  return lines;
}

/** The next round number: 1, 2 or 5 times a power of ten, or a round number of minutes or hours. */
function nice(seconds) {
  if (seconds > 60) {
    const units = [120, 300, 600, 1800, 3600, 7200, 21600, 86400];
    return units.find((unit) => unit >= seconds) ?? Math.ceil(seconds / 86400) * 86400;
  }
  const power = 10 ** Math.floor(Math.log10(seconds));
  return [1, 2, 5, 10].map((one) => one * power).find((one) => one >= seconds);
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

function cut(name, width) {
  // Letters of East Asian scripts are about twice as wide.
  let room = Math.floor((width - 12) / LETTER);
  let kept = "";
  for (const letter of name) {
    room -= letter.codePointAt(0) > 0x2e80 ? 2 : 1;
    if (room < 1) return `${kept}…`;
    kept += letter;
  }
  return kept;
}
