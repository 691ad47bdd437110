import assert from "node:assert/strict";
import { test } from "node:test";

import { holdClock, load } from "./page.mjs";

const { asQuery, fits, isFiltered, limits } = await load("runs_limits.js");

const of = (text) => limits(new URLSearchParams(text));
const NONE = of("");
const RUN = {
  run_id: "7f3a",
  flow_name: "Nightly",
  tag: "gpu",
  tags: ["small"],
  worker_id: "w-1",
  status: "FAILED",
  updated_at: 1000,
  error: "ImportError: no module",
};

test("limits are what the address says", () => {
  assert.deepEqual(NONE, { status: "", q: "", flow: "", tag: "", worker: "", span: null, cursor: "" });
  const some = { ...NONE, status: "FAILED", span: 3600, q: "x", cursor: "c" };
  assert.deepEqual(of("status=FAILED&since=1h&q=x&cursor=c"), some);
  // Neither an unknown span nor what every object has.
  assert.equal(of("since=2h").span, null);
  assert.equal(of("since=constructor").span, null);
});

test("a page is filtered by any limit but its cursor", () => {
  for (const text of ["status=FAILED", "since=1h", "q=x", "flow=x", "tag=x", "worker=x"]) {
    assert.ok(isFiltered(new URLSearchParams(text)), text);
  }
  for (const text of ["", "cursor=c", "q=", "lang=en"]) assert.ok(!isFiltered(new URLSearchParams(text)), text);
});

test("a run fits when it is within every limit", (t) => {
  holdClock(t.mock, 1500);
  const cases = {
    "": true,
    "status=FAILED": true,
    "status=RUNNING": false,
    "flow=Nightly": true,
    "flow=Night": false,
    "tag=gpu": true,
    // The tag that it waits for, not the others that it has.
    "tag=small": false,
    "worker=w-1": true,
    "worker=w": false,
    "since=15m": true,
    "q=NIGHT": true,
    "q=7f3": true,
    "q=small": true,
    "q=importerror": true,
    "q=nothing": false,
    "status=FAILED&tag=gpu&q=w-1": true,
    "status=FAILED&tag=cpu": false,
  };
  for (const [text, expected] of Object.entries(cases)) assert.equal(fits(RUN, of(text)), expected, text);
  assert.equal(fits({ ...RUN, updated_at: 599 }, of("since=15m")), false);
  const bare = { run_id: "a", flow_name: "f", tag: "t", status: "PENDING", updated_at: 1 };
  assert.equal(fits(bare, of("q=x")), false);
});

test("the gateway is asked for what is limited", (t) => {
  holdClock(t.mock, 10_000);
  assert.equal(asQuery(NONE, 50).toString(), "limit=50&cursor=");
  const query = asQuery(of("status=FAILED&since=1h&q=a%26b&cursor=c"), 50);
  assert.equal(query.toString(), "limit=50&cursor=c&status=FAILED&q=a%26b&updated_after=6400");
});
