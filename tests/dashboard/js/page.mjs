// What modules read of their page when they are loaded: an English page at the root of a gateway.
// Import it before any module of the dashboard.

export const location = { hash: "", search: "" };
const documentElement = { lang: "en", dataset: {} };
const storage = new Map();
const store = {
  getItem: (name) => storage.get(name) ?? null,
  setItem: (name, value) => storage.set(name, value),
  removeItem: (name) => storage.delete(name),
};
const globals = {
  location,
  document: { documentElement, hidden: false },
  localStorage: store,
  sessionStorage: store,
  navigator: { languages: ["en-GB", "de"] },
};
for (const [name, value] of Object.entries(globals)) {
  // Some are there in newer versions of node, and cannot be assigned.
  Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
}

/** A module of the dashboard. */
export function load(name) {
  return import(new URL(`../../../src/gateway/page/assets/${name}`, import.meta.url));
}

/** Holds the clock at this many seconds. */
export function holdClock(mock, seconds) {
  mock.method(Date, "now", () => seconds * 1000);
}
