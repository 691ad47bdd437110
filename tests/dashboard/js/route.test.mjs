import assert from "node:assert/strict";
import { test } from "node:test";

import { load, location } from "./page.mjs";

const { here, to, withQuery } = await load("route.js");

test("an address is taken apart", () => {
  for (const [hash, page, id, query] of [
    ["", "runs", "", ""],
    ["#", "runs", "", ""],
    ["#/", "runs", "", ""],
    ["#/workers", "workers", "", ""],
    ["#workers", "workers", "", ""],
    ["#/run/a%2Fb?tab=x", "run", "a/b", "tab=x"],
    ["#/runs?q=a%20b&tag=gpu", "runs", "", "q=a+b&tag=gpu"],
    // What is no escape stays as it is.
    ["#/run/100%", "run", "100%", ""],
  ]) {
    location.hash = hash;
    const found = here();
    assert.deepEqual([found.page, found.id, found.query.toString()], [page, id, query], hash);
  }
});

test("an address is put together without what is empty", () => {
  assert.equal(to("runs"), "#/runs");
  assert.equal(to("run", "a/b c"), "#/run/a%2Fb%20c");
  assert.equal(to("runs", "", { q: "", tag: null, flow: undefined, status: "FAILED" }), "#/runs?status=FAILED");
  assert.equal(to("runs", "", { n: 0 }), "#/runs?n=0");
});

test("an address survives both ways", () => {
  for (const id of ["plain", "a/b", "ä b", "日本", "50%", "?&#"]) {
    location.hash = to("run", id, { q: id });
    assert.deepEqual([here().page, here().id, here().query.get("q")], ["run", id, id]);
  }
});

test("one setting is changed and the others stay", () => {
  location.hash = "#/runs?tag=gpu&q=x";
  assert.equal(withQuery({ q: "y", cursor: "" }), "#/runs?tag=gpu&q=y");
  assert.equal(withQuery({ tag: "" }), "#/runs?q=x");
});
