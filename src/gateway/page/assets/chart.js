// Runs that have ended, minute by minute, over the last hour.

import { get } from "./api.js";
import { ENDS, MINUTES, perMinute, roundUp, size } from "./chart_bars.js";
import { el, replace, svg } from "./dom.js";
import { listen, whenReady } from "./events.js";
import { clock, now, number } from "./format.js";
import { t } from "./i18n.js";
import { isTerminal, problem } from "./pieces.js";

/** Pages of 200 runs that are read for the past of each status. A busier hour is shown as far as they go. */
const PAGES = 10;
const HEIGHT = 140;
const AXIS = 18;
const LEFT = 46;

export class Throughput {
  constructor(place) {
    this.place = place;
    this.ends = new Map();
    this.reaches = null;
    this.error = null;
    this.resized = new ResizeObserver(() => this.draw());
    this.resized.observe(place);
    this.timer = setInterval(() => this.draw(), 5000);
    this.stops = [
      listen("sync", () => this.load()),
      listen("run", (run) => this.put(run)),
      whenReady(() => this.load()),
    ];
  }

  close() {
    clearInterval(this.timer);
    this.resized.disconnect();
    this.stops.forEach((stop) => stop());
    this.closed = true;
  }

  async load() {
    const from = now() - MINUTES * 60;
    try {
      const reached = await Promise.all(ENDS.map((status) => this.loadPast(status, from)));
      this.reaches = Math.max(...reached);
      this.error = null;
    } catch (error) {
      this.error = error;
    }
    this.draw();
  }

  /** Returns the time from which on everything is known. */
  async loadPast(status, from) {
    let cursor = "";
    let oldest = from;
    for (let page = 0; page < PAGES && cursor !== null && !this.closed; page += 1) {
      const query = new URLSearchParams({ status, limit: 200, cursor, updated_after: from });
      const answer = await get(`/runs?${query}`);
      answer.items.forEach((run) => this.put(run));
      cursor = answer.next_cursor;
      oldest = cursor === null ? from : answer.items.at(-1).updated_at;
    }
    return oldest;
  }

  put(run) {
    if (isTerminal(run.status)) this.ends.set(run.run_id, { status: run.status, at: run.end_time ?? run.updated_at });
  }

  draw() {
    const width = this.place.clientWidth;
    if (width === 0 || this.closed) return;
    const last = Math.floor(now() / 60);
    const bars = perMinute(this.ends, last);
    const total = bars.reduce((sum, bar) => sum + size(bar), 0);
    const isShort = this.reaches !== null && this.reaches > now() - (MINUTES - 1) * 60;
    replace(
      this.place,
      this.error ? problem(this.error, () => this.load()) : null,
      picture(bars, last, width, total),
      el(
        "p",
        { class: "quiet legend" },
        ENDS.map((status) => el("span", { class: `key is-${status.toLowerCase()}` }, t(`run.${status}`))),
        isShort ? null : t("chart.total", { n: number(total) }),
      ),
      isShort ? el("p", { class: "quiet" }, t("chart.reaches", { time: clock(this.reaches) })) : null,
    );
  }
}

function picture(bars, last, width, total) {
  const most = 2 * roundUp(Math.max(2, ...bars.map((bar) => size(bar) / 2)));
  const room = HEIGHT - AXIS;
  const step = (width - LEFT) / MINUTES;
  const y = (count) => room - (count / most) * (room - 8);
  const label = t("chart.label", { n: number(total) });
  return svg(
    "svg",
    { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": label, class: "chart" },
    [0, most / 2, most].map((count) => [
      svg("line", { x1: LEFT, x2: width, y1: y(count), y2: y(count), class: "grid" }),
      svg("text", { x: LEFT - 6, y: y(count) + 4, class: "tick end" }, number(count)),
    ]),
    bars.map((bar, at) => column(bar, LEFT + at * step, Math.max(1, step - 1.5), y, last - (MINUTES - 1 - at))),
    [0, 15, 30, 45].map((at) =>
      svg("text", { x: LEFT + at * step, y: HEIGHT - 4, class: "tick" }, clock((last - (MINUTES - 1 - at)) * 60)),
    ),
  );
}

function column(bar, x, width, y, minute) {
  let below = 0;
  return ENDS.filter((status) => bar[status] > 0).map((status) => {
    const top = y(below + bar[status]);
    const height = y(below) - top;
    below += bar[status];
    const title = `${clock(minute * 60)} ${t(`run.${status}`)}: ${number(bar[status])}`;
    return svg("rect", { x, y: top, width, height, class: `bar is-${status.toLowerCase()}` }, svg("title", {}, title));
  });
}
