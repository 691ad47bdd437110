// Starts a run: with a flow.yaml, or by the name of a flow that a worker knows.

import { ApiError, sendForm, sendJson } from "./api.js";
import { announce, el } from "./dom.js";
import { knownTags } from "./fleet.js";
import { t } from "./i18n.js";
import { problem, section, suggestions } from "./pieces.js";
import { go, to } from "./route.js";

const SAMPLE = `version: 1
flow:
  graph: |
    hello >> wait
tasks:
  hello:
    use: builtin/echo
    inputs:
      text: hello
  wait:
    use: builtin/sleep
    inputs:
      seconds: 3
`;
/** Which field the texts of the gateway are about. */
const ABOUT = [
  [/workflow/, "workflow"],
  [/^invalid tag/, "tag"],
  [/flow_name/, "flow_name"],
];

export function submitPage(place, { query }) {
  place.append(
    el("div", { class: "title" }, el("h1", {}, t("nav.submit"))),
    suggestions("known-tags", knownTags()),
    el("div", { class: "columns" }, section(t("submit.yaml"), yamlForm()), section(t("submit.name"), nameForm(query))),
  );
  return { update() {}, close() {} };
}

function yamlForm() {
  const text = el("textarea", { id: "yaml-workflow", rows: "16", spellcheck: "false", wrap: "off", value: SAMPLE });
  const file = el("input", { id: "yaml-file", type: "file", accept: ".yaml,.yml,text/yaml" });
  file.addEventListener("change", async () => {
    if (file.files[0]) text.value = await file.files[0].text();
    text.dispatchEvent(new Event("input", { bubbles: true }));
  });
  const { name, tag } = common("yaml", "main", "");
  const fields = {
    workflow: field("workflow", text),
    file: field("file", file),
    flow_name: field("flow_name", name),
    tag: field("tag", tag),
  };
  return form("yaml", fields, async (more) => {
    const body = new FormData();
    body.append("workflow", new Blob([text.value], { type: "application/yaml" }), "flow.yaml");
    body.append("flow_name", name.value.trim());
    if (tag.value.trim()) body.append("tag", tag.value.trim());
    return sendForm("/runs/yaml", body, more);
  });
}

function nameForm(query) {
  const { name, tag } = common("name", query.get("flow") ?? "main", query.get("tag") ?? "");
  const labels = el("input", { id: "name-tags", autocomplete: "off", placeholder: "team-a, nightly" });
  const shown = pretty(query.get("params") ?? "{}");
  const params = el("textarea", { id: "name-params", rows: "8", spellcheck: "false", value: shown });
  const fields = {
    flow_name: field("flow_name", name),
    tag: field("tag", tag),
    tags: field("tags", labels),
    params: field("params", params),
  };
  return form("name", fields, async (more) => {
    const body = { flow_name: name.value.trim(), params: parsed(params.value) };
    if (tag.value.trim()) body.tag = tag.value.trim();
    const free = labels.value
      .split(",")
      .map((one) => one.trim())
      .filter(Boolean);
    if (free.length > 0) body.tags = free;
    return sendJson("POST", "/runs", body, more);
  });
}

/** The inputs that both forms have. */
function common(kind, flow, tag) {
  const list = { list: "known-tags", placeholder: "default" };
  return {
    name: el("input", { id: `${kind}-flow_name`, value: flow, autocomplete: "off" }),
    tag: el("input", { id: `${kind}-tag`, value: tag, autocomplete: "off", ...list }),
  };
}

/** An input with its label and a place for what is wrong with it. */
function field(name, input) {
  const said = el("p", { class: "field-error", id: `${input.id}-error` });
  return {
    node: el("div", { class: "field" }, el("label", { for: input.id }, t(`submit.${name}`)), input, said),
    say(text) {
      said.textContent = text;
      if (text) input.setAttribute("aria-invalid", "true");
      else input.removeAttribute("aria-invalid");
      input.setAttribute("aria-describedby", said.id);
    },
    focus: () => input.focus(),
  };
}

function form(kind, fields, send) {
  const said = el("div");
  const button = el("button", { type: "submit", class: "primary" }, t("submit.do"));
  // The same submit sent twice, after a lost answer for instance, is one run.
  let key = newKey();
  const node = el(
    "form",
    { class: "submit", id: `submit-${kind}`, onsubmit: submit, oninput: () => (key = newKey()) },
    Object.values(fields).map((one) => one.node),
    button,
    said,
  );

  async function submit(event) {
    event.preventDefault();
    button.disabled = true;
    said.replaceChildren();
    Object.values(fields).forEach((one) => one.say(""));
    try {
      const { run_id: id } = await send({ "Idempotency-Key": key });
      announce(t("submit.done"));
      go(to("run", id));
    } catch (error) {
      tell(error);
    }
    button.disabled = false;
  }

  function tell(error) {
    let first = null;
    const rest = [];
    for (const [name, text] of complaints(error)) {
      if (fields[name]) {
        fields[name].say(text);
        first ??= fields[name];
      } else {
        rest.push(text);
      }
    }
    first?.focus();
    if (!first || rest.length > 0) said.replaceChildren(problem(error));
  }

  return node;
}

/** `crypto.randomUUID` exists on encrypted pages and on this machine only. */
function newKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** What the gateway has to say, as pairs of field and text. */
function complaints(error) {
  if (error instanceof BadField) return [[error.field, error.message]];
  if (!(error instanceof ApiError)) return [["", String(error)]];
  const { detail, reason, reason_detail: where } = error.body;
  if (Array.isArray(detail)) return detail.map((one) => [String(one.loc?.[1] ?? ""), one.msg]);
  const text = [detail, reason, where].filter(Boolean).join(": ");
  const about =
    error.status === 422 || error.status === 413 ? ABOUT.find(([pattern]) => pattern.test(detail ?? "")) : null;
  return [[about?.[1] ?? "", text]];
}

class BadField extends Error {
  constructor(field, message) {
    super(message);
    this.field = field;
  }
}

function parsed(text) {
  try {
    return text.trim() === "" ? {} : JSON.parse(text);
  } catch (error) {
    throw new BadField("params", t("submit.not_json", { why: error.message }));
  }
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
