// Requests to the gateway, with the visitor's key, which lives in this tab's session storage alone.

const STORE = "pyoco.key";
const HEADER = document.documentElement.dataset.keyHeader || "X-API-Key";
/** Longer than any request to the gateway takes (it gives NATS 5 s). */
const PATIENCE_MS = 20_000;
/** The same for an upload: the gateway gives it half a minute, and a second for so many bytes. */
const UPLOAD_PATIENCE_MS = 60_000;
const UPLOAD_BYTES_PER_SEC = 64 * 1024;

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

  /** Whether the key is good, and its role may not do this. */
  get isAboutRole() {
    return this.status === 403 && Boolean(this.body.role);
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

/** DELETE. */
export async function remove(path) {
  return (await send("DELETE", path)).json();
}

/**
 * POST of a form with a file of `size` bytes. `told(share)` gets how much of it has left this machine, from 0
 * to 1, which fetch cannot say. Returns the promise of the `answer`, and `abort()`.
 */
export function upload(path, form, size, told) {
  const request = new XMLHttpRequest();
  const answer = new Promise((resolve, reject) => {
    request.open("POST", path);
    request.timeout = UPLOAD_PATIENCE_MS + (size / UPLOAD_BYTES_PER_SEC) * 1000;
    for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
    request.upload.addEventListener("progress", ({ loaded, total }) => told(total ? loaded / total : 0));
    request.addEventListener("load", () => {
      const body = parsed(request.responseText);
      if (request.status < 300) resolve(body);
      else reject(refused(request.status, body, request.getResponseHeader("Retry-After")));
    });
    for (const end of ["error", "abort", "timeout"]) {
      request.addEventListener(end, () => reject(new ApiError(0, null)));
    }
    request.send(form);
  });
  return { answer, abort: () => request.abort() };
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
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
  return refused(response.status, body, response.headers.get("Retry-After"));
}

function refused(status, body, retryAfter) {
  const error = new ApiError(status, body, Number(retryAfter) || null);
  if (error.isAboutKey) {
    dispatchEvent(new CustomEvent("pyoco:key-needed", { detail: { had: key() !== "" } }));
  }
  return error;
}
