import assert from "node:assert/strict";
import { test } from "node:test";

import { load } from "./page.mjs";

const { parse } = await load("figures.js");

test("samples are found by name and labels", () => {
  const figures = parse(
    [
      "# HELP a What it is.",
      "# TYPE a gauge",
      'a{tag="gpu",n="1"} 5',
      'a{tag="c\\"p\\\\u\\n"} 7',
      "b_total 1.5e3",
      "nonsense",
      "",
    ].join("\n"),
  );
  assert.equal(figures.one("b_total"), 1500);
  assert.equal(figures.one("a", { tag: "gpu" }), 5);
  assert.equal(figures.one("a", { n: "1", tag: "gpu" }), 5);
  assert.equal(figures.one("a", { tag: 'c"p\\u\n' }), 7);
  assert.equal(figures.one("a", { tag: "cpu" }), null);
  assert.equal(figures.one("c"), null);
  assert.deepEqual(figures.all("a").map((sample) => sample.value), [5, 7]);
  assert.deepEqual(figures.all("c"), []);
});
