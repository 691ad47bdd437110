// The head of the page: where to go, language, colours, the key, and what is wrong with the connection.

import { key, keyHeader, setKey } from "./api.js";
import { el, replace } from "./dom.js";
import { connection, listen } from "./events.js";
import { now } from "./format.js";
import { choose, language, t } from "./i18n.js";
import { running } from "./moving.js";
import { here, to } from "./route.js";

const PAGES = ["runs", "workers", "wheels", "metrics", "submit"];
const THEMES = ["auto", "light", "dark"];
let keyShown = false;
let keyRefused = null;

/** Draws the head into `#header` and keeps it current. */
export function startHeader() {
  addEventListener("hashchange", draw);
  addEventListener("pyoco:language", () => {
    draw();
    drawNotices();
  });
  addEventListener("pyoco:key-needed", ({ detail }) => {
    keyShown = true;
    keyRefused = detail.had;
    drawNotices();
  });
  addEventListener("pyoco:key", draw);
  listen("connection", drawNotices);
  draw();
  drawNotices();
}

function draw() {
  const { page } = here();
  const current = page === "run" ? "runs" : page;
  const links = PAGES.map((name) =>
    el("a", { href: to(name), "aria-current": name === current ? "page" : null }, t(`nav.${name}`)),
  );
  replace(
    document.getElementById("header"),
    el("a", { class: "skip", href: "#main", onclick: skip }, t("nav.skip")),
    el(
      "a",
      { class: "brand", href: to("runs") },
      el("img", { src: "/static/icon.svg", alt: "", width: 22, height: 22 }),
      "Pyoco",
    ),
    el("nav", { "aria-label": t("nav.label") }, links),
    el("div", { class: "switches" }, keyButton(), languageSwitch(), themeSwitch()),
  );
}

// The address after `#` says which view is open, so the link must not change it.
function skip(event) {
  event.preventDefault();
  document.getElementById("main").focus();
}

function keyButton() {
  return el(
    "button",
    { type: "button", class: "small", id: "key-button", "aria-expanded": String(keyShown), onclick: toggleKey },
    key() ? t("key.set") : t("key.none"),
  );
}

function toggleKey() {
  keyShown = !keyShown;
  keyRefused = null;
  draw();
  drawNotices();
  document.getElementById("key-field")?.focus();
}

function languageSwitch() {
  const option = (lang, name) => el("option", { value: lang, selected: lang === language() }, name);
  return el(
    "select",
    { id: "language", "aria-label": "Language / 言語", onchange: (event) => choose(event.target.value) },
    option("ja", "日本語"),
    option("en", "English"),
  );
}

function themeSwitch() {
  const chosen = document.documentElement.dataset.theme ?? "auto";
  const option = (theme) => el("option", { value: theme, selected: theme === chosen }, t(`theme.${theme}`));
  return el(
    "select",
    { id: "theme", "aria-label": t("theme.label"), onchange: (event) => setTheme(event.target.value) },
    THEMES.map(option),
  );
}

function setTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  try {
    if (theme === "auto") localStorage.removeItem("pyoco.theme");
    else localStorage.setItem("pyoco.theme", theme);
  } catch {
    // Without storage the choice holds for this page.
  }
}

function drawNotices() {
  const typed = document.getElementById("key-field")?.value ?? null;
  replace(document.getElementById("notices"), keyForm(typed), connectionNotice());
}

function keyForm(typed) {
  if (!keyShown) return null;
  const field = el("input", {
    id: "key-field",
    type: "password",
    autocomplete: "off",
    spellcheck: "false",
    value: typed ?? key(),
    placeholder: "pyoco_….…",
    "aria-describedby": "key-help",
  });
  const done = (value) => {
    keyShown = false;
    keyRefused = null;
    setKey(value);
    drawNotices();
  };
  return el(
    "form",
    { class: "notice key", onsubmit: (event) => (event.preventDefault(), done(field.value.trim())) },
    keyRefused !== null ? el("p", { role: "alert" }, t(keyRefused ? "key.refused" : "key.needed")) : null,
    el("label", { for: "key-field" }, t("key.label")),
    field,
    el("button", { type: "submit" }, t("key.use")),
    el("button", { type: "button", onclick: () => done("") }, t("key.forget")),
    el("p", { id: "key-help", class: "quiet" }, t("key.help", { header: keyHeader() })),
  );
}

function connectionNotice() {
  const { state, live, retryAt, why } = connection;
  if (state === "lost") {
    const left = running(() => t("connection.retry", { n: Math.max(0, Math.ceil(retryAt - now())) }));
    return el(
      "p",
      { class: "notice bad", role: "alert", id: "connection" },
      why ? t("connection.no_stream", { why }) : t("connection.lost"),
      " ",
      left,
    );
  }
  if (state === "open" && live === false) {
    return el("p", { class: "notice bad", role: "alert", id: "connection" }, t("connection.nats"));
  }
  return null;
}
