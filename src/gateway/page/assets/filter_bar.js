// A search field and a choice above a list; both stand in the address.

import { el } from "./dom.js";
import { go, here, withQuery } from "./route.js";

/** `name` begins the ids; `choices` are the words of the choice with their texts, the empty one for all. */
export function filterBar(name, { search: searchText, which: whichText, choices }) {
  const search = el("input", {
    type: "search",
    id: `${name}-q`,
    value: here().query.get("q") ?? "",
    autocomplete: "off",
    oninput: () => go(withQuery({ q: search.value.trim() }), true),
  });
  const show = el(
    "select",
    { id: `${name}-show`, onchange: () => go(withQuery({ show: show.value })) },
    choices.map(([word, text]) => el("option", { value: word }, text)),
  );
  show.value = here().query.get("show") ?? "";
  const node = el(
    "form",
    { class: "filters", role: "search", onsubmit: (event) => event.preventDefault() },
    el("label", {}, el("span", {}, searchText), search),
    el("label", {}, el("span", {}, whichText), show),
  );
  return {
    node,
    update(query) {
      if (document.activeElement !== search) search.value = query.get("q") ?? "";
      show.value = query.get("show") ?? "";
    },
  };
}
