import assert from "node:assert/strict";
import { test } from "node:test";

import { load } from "./page.mjs";

const { limits } = await load("runs_limits.js");
const { MOST_MOVED, RunsList } = await load("runs_list.js");

const PENDING = limits(new URLSearchParams("status=PENDING"));
const run = (n, status = "PENDING") => ({ run_id: `r${n}`, flow_name: "f", tag: "t", status, updated_at: n });

/** A list that is loaded and draws nothing; what it would do later stands in `due`. */
function list(limits = PENDING) {
  const found = new RunsList(limits, () => {});
  found.isLoaded = true;
  found.due = {};
  found.later = (name, after, act) => (found.due[name] = act);
  return found;
}

test("events keep the list current, the newest first", () => {
  const page = list();
  [2, 1, 3].forEach((n) => page.put(run(n)));
  assert.deepEqual(page.runs.map((one) => one.run_id), ["r3", "r2", "r1"]);
  // What does not fit any more leaves, and what never did does not come.
  page.put(run(2, "RUNNING"));
  page.put(run(4, "RUNNING"));
  page.remove("r1");
  assert.deepEqual(page.runs.map((one) => one.run_id), ["r3"]);
});

test("runs of one moment have an order of their own", () => {
  const page = list();
  ["b", "a", "c"].forEach((id) => page.put({ ...run(1), run_id: id }));
  assert.deepEqual(page.runs.map((one) => one.run_id), ["c", "b", "a"]);
});

test("on a later page what comes is counted and not shown", () => {
  const page = list({ ...PENDING, cursor: "c" });
  for (let n = 0; n < MOST_MOVED + 5; n += 1) page.put(run(n));
  page.put(run(1));
  assert.deepEqual([page.runs.length, page.changesBefore], [0, MOST_MOVED]);
});

test("the first page does not grow without end", () => {
  const page = list();
  for (let n = 0; n < 99; n += 1) page.put(run(n));
  assert.equal(page.due.load, undefined);
  for (let n = 99; n < 500; n += 1) page.put(run(n));
  assert.ok(page.due.load, "it is not loaded anew");
  page.due.draw();
  assert.equal(page.runs.length, 100);
  assert.equal(page.runs[0].run_id, "r499");
});
