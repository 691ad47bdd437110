// Where the visitor is: page, id and settings stand in the URL after `#`, so each view can be shared.

/** `#/run/ID?a=b` taken apart. */
export function here() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [page, id] = path.split("/").map(decode);
  return { page: page || "runs", id: id ?? "", query: new URLSearchParams(query) };
}

/** The address of a view; empty values are left out. */
export function to(page, id = "", query = {}) {
  const wanted = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== null && value !== undefined && value !== "") wanted.set(name, value);
  }
  const text = wanted.toString();
  return `#/${page}${id ? `/${encodeURIComponent(id)}` : ""}${text ? `?${text}` : ""}`;
}

/** The present view with some settings changed. */
export function withQuery(changes) {
  const { page, id, query } = here();
  return to(page, id, { ...Object.fromEntries(query), ...changes });
}

/** Goes to an address; with `quietly` it takes the place of the present one in the history. */
export function go(address, quietly = false) {
  if (address === location.hash) return;
  if (quietly) {
    history.replaceState(null, "", address);
    dispatchEvent(new HashChangeEvent("hashchange"));
  } else {
    location.hash = address;
  }
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
