// Uploads wheels: chosen or dropped, one after the other, with how far each is.

import { upload } from "./api.js";
import { announce, el } from "./dom.js";
import { size } from "./format.js";
import { t } from "./i18n.js";
import { problem, section, suggestions } from "./pieces.js";

/** `done()` is called when the registry has changed. `close()` ends what is under way. */
export function uploadPart(knownTags, done) {
  const file = el("input", { id: "wheel-file", type: "file", accept: ".whl", multiple: true, onchange: chosen });
  const suggested = { list: "wheel-known-tags", placeholder: "cpu, linux" };
  const tags = el("input", { id: "wheel-tags", autocomplete: "off", ...suggested });
  const button = el("button", { type: "submit", class: "primary", disabled: true }, t("wheels.upload_do"));
  const list = el("ul", { class: "uploads" });
  const zone = el("div", { class: "drop" }, el("label", { for: "wheel-file" }, t("wheels.choose")), file);
  const node = section(
    t("wheels.upload"),
    suggestions("wheel-known-tags", knownTags),
    el(
      "form",
      { class: "upload", onsubmit: start },
      zone,
      el("div", { class: "field" }, el("label", { for: "wheel-tags" }, t("wheels.tags")), tags),
      button,
    ),
    list,
  );
  let isBusy = false;
  let abort = () => {};
  let isClosed = false;

  function chosen() {
    button.disabled = isBusy || file.files.length === 0;
  }

  async function start(event) {
    event.preventDefault();
    const items = [...file.files].map((one) => item(one, tags.value));
    if (isBusy || items.length === 0) return;
    isBusy = true;
    list.replaceChildren(...items.map((one) => one.node));
    file.value = "";
    chosen();
    for (const one of items) {
      if (isClosed) break;
      if (await one.send((how) => (abort = how))) done();
    }
    isBusy = false;
    chosen();
  }

  // A file that misses the zone would be opened in place of the page.
  function over(event) {
    if (![...event.dataTransfer.types].includes("Files")) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = isBusy ? "none" : "copy";
    zone.classList.toggle("is-over", !isBusy);
  }
  function out(event) {
    if (!event.relatedTarget) zone.classList.remove("is-over");
  }
  function drop(event) {
    zone.classList.remove("is-over");
    if (![...event.dataTransfer.types].includes("Files")) return;
    event.preventDefault();
    if (isBusy) return;
    file.files = event.dataTransfer.files;
    chosen();
    button.focus();
  }
  const listeners = { dragover: over, dragleave: out, drop };
  for (const [name, listener] of Object.entries(listeners)) document.addEventListener(name, listener);

  return {
    node,
    close() {
      isClosed = true;
      abort();
      for (const [name, listener] of Object.entries(listeners)) document.removeEventListener(name, listener);
    },
  };
}

/** One file on its way; `send` is true when the registry has it. */
function item(file, tags) {
  const bar = el("progress", { max: "1", value: 0, "aria-label": file.name });
  const state = el("span", { class: "quiet" }, t("wheels.upload_waits"));
  const stop = el("button", { type: "button", class: "small" }, t("wheels.upload_stop"));
  const said = el("div");
  const node = el(
    "li",
    { "data-upload": file.name },
    el(
      "div",
      { class: "upload-line" },
      el("code", {}, file.name),
      el("span", { class: "quiet" }, size(file.size)),
      bar,
      state,
      stop,
    ),
    said,
  );
  let isStopped = false;
  stop.addEventListener("click", () => (isStopped = true));

  function end(kind, text) {
    bar.remove();
    stop.remove();
    state.className = `badge is-${kind}`;
    state.textContent = text;
    announce(`${file.name}: ${text}`);
  }

  async function send(abortable) {
    if (isStopped) {
      end("disabled", t("wheels.upload_stopped"));
      return false;
    }
    const form = new FormData();
    // Before the file, so that a refusal comes before the upload.
    if (tags.trim()) form.append("tags", tags.trim());
    form.append("wheel", file, file.name);
    const { answer, abort } = upload("/wheels", form, file.size, (share) => {
      bar.value = share;
      state.textContent = share < 1 ? `${Math.floor(share * 100)} %` : t("wheels.upload_checked");
    });
    abortable(abort);
    stop.addEventListener("click", abort);
    try {
      await answer;
      end("ok", `✓ ${t("wheels.uploaded")}`);
      return true;
    } catch (error) {
      if (isStopped) end("disabled", t("wheels.upload_stopped"));
      else {
        end("error", `✕ ${t("wheels.refused")}`);
        said.replaceChildren(problem(error));
        if (error.status === 0) said.append(el("p", { class: "quiet" }, t("wheels.broken")));
      }
      return false;
    }
  }

  return { node, send };
}
