// Requests to the gateway, with the visitor's key, which lives in this tab's session storage alone.

const STORE = "pyoco.key";
const HEADER = document.documentElement.dataset.keyHeader || "X-API-Key";
/** Longer than any request to the gateway takes (it gives NATS 5 s). */
const PATIENCE_MS = 20_000;

/** What the gateway answered instead of the thing asked for; `status` is 0 when it did not answer. */
export class ApiError extends Error {
  constructor(status, body, retryAfter = null) {
    super(typeof body?.detail === "string" ? body.detail : `HTTP ${status}`);
    this.status = status;
    this.body = body ?? {};
    this.retryAfter = retryAfter;
  }

  /** Whether another key is needed; a key whose role may not do one thing is good for others. */
  get isAboutKey() {
    return this.status === 401 || (this.status === 403 && !this.body.role);
  }
}

export function key() {
  return sessionStorage.getItem(STORE) ?? "";
}

/** Keeps a key until the tab is closed, or forgets it; everything is then asked for anew. */
export function setKey(value) {
  if (value) sessionStorage.setItem(STORE, value);
  else sessionStorage.removeItem(STORE);
  dispatchEvent(new Event("pyoco:key"));
}

export function keyHeader() {
  return HEADER;
}

/** Headers of a request; a key is never in an address. */
export function headers(more = {}) {
  return key() ? { [HEADER]: key(), ...more } : more;
}

/** GET of JSON. */
export async function get(path) {
  return (await send("GET", path)).json();
}

/** GET of a text. */
export async function text(path) {
  return (await send("GET", path)).text();
}

/** A request with a JSON body. */
export async function sendJson(method, path, body, more = {}) {
  const head = { "Content-Type": "application/json", ...more };
  return (await send(method, path, JSON.stringify(body), head)).json();
}

/** POST of a form. */
export async function sendForm(path, form, more = {}) {
  return (await send("POST", path, form, more)).json();
}

async function send(method, path, body, more) {
  const signal = AbortSignal.timeout(PATIENCE_MS);
  let response;
  try {
    response = await fetch(path, { method, body, signal, headers: headers(more), cache: "no-store" });
  } catch {
    throw new ApiError(0, null);
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

/** The error in an answer; a missing or wrong key makes the page ask for one. */
export async function refusal(response) {
  const body = await response.json().catch(() => null);
  const error = new ApiError(response.status, body, Number(response.headers.get("Retry-After")) || null);
  if (error.isAboutKey) {
    dispatchEvent(new CustomEvent("pyoco:key-needed", { detail: { had: key() !== "" } }));
  }
  return error;
}
