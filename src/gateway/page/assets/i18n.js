// The language of the page: `?lang=`, else what was chosen before, else what the server says.

import { texts as en } from "./texts.en.js";
import { texts as ja } from "./texts.ja.js";

const ALL = { en, ja };
const STORE = "pyoco.lang";
let lang = first(new URLSearchParams(location.search).get("lang"), stored(), document.documentElement.lang);

/** The present language. */
export function language() {
  return lang;
}

/** Changes the language of the whole page, and remembers it. */
export function choose(wanted) {
  lang = first(wanted, lang);
  try {
    localStorage.setItem(STORE, lang);
  } catch {
    // Without storage the choice holds for this page.
  }
  const url = new URL(location.href);
  if (url.searchParams.has("lang")) {
    url.searchParams.set("lang", lang);
    history.replaceState(null, "", url);
  }
  dispatchEvent(new Event("pyoco:language"));
}

/** A text by its name, with `{word}` filled in. */
export function t(name, words = {}) {
  const text = ALL[lang][name] ?? ALL.en[name] ?? name;
  return text.replace(/\{(\w+)\}/g, (whole, word) => words[word] ?? whole);
}

function first(...words) {
  return words.find((word) => Object.hasOwn(ALL, word)) ?? "en";
}

function stored() {
  try {
    return localStorage.getItem(STORE) ?? "";
  } catch {
    return "";
  }
}
