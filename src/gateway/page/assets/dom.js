// Makes and updates elements. Text becomes text nodes: nothing that a run says is ever read as HTML.

const SVG = "http://www.w3.org/2000/svg";

/** An element. `on…` are listeners, `value` and `checked` are set as properties, null is left out. */
export function el(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** An element of a drawing. */
export function svg(tag, props = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked") node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...flat(children));
  return node;
}

function flat(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
}

/** Replaces the children of `node`, and keeps the focus where it was as far as possible. */
export function replace(node, ...children) {
  keepingFocus(node, () => node.replaceChildren(...flat(children)));
}

/**
 * Makes the children of `parent` those of `items`: one per key, in order, drawn anew only when what
 * `sign` says of the item has changed. So what the user has opened, selected or focused stays.
 */
export function keyed(parent, items, key, draw, sign = JSON.stringify) {
  const old = new Map([...parent.children].map((child) => [child.pyocoKey, child]));
  const wanted = new Set(items.map(key));
  for (const [id, child] of old) if (!wanted.has(id)) child.remove();
  const focused = parent.contains(document.activeElement) ? document.activeElement : null;
  let place = parent.firstElementChild;
  for (const item of items) {
    const id = key(item);
    const signature = sign(item);
    let child = old.get(id);
    if (!child || child.pyocoSign !== signature) {
      const fresh = draw(item);
      fresh.pyocoKey = id;
      fresh.pyocoSign = signature;
      if (child) {
        if (child === place) place = fresh;
        swap(child, fresh);
      }
      child = fresh;
    }
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
  }
  // What is moved loses the focus.
  if (focused?.isConnected && document.activeElement !== focused) focused.focus({ preventScroll: true });
}

/** Puts `fresh` in the place of `old`, with its open parts and its focus. */
function swap(old, fresh) {
  const opened = [...old.querySelectorAll("details")].map((one) => one.open);
  fresh.querySelectorAll("details").forEach((one, at) => {
    if (opened[at] !== undefined) one.open = opened[at];
  });
  const at = focusable(old).indexOf(document.activeElement);
  old.replaceWith(fresh);
  if (at >= 0) focusable(fresh)[at]?.focus({ preventScroll: true });
}

function keepingFocus(node, change) {
  const at = focusable(node).indexOf(document.activeElement);
  change();
  if (at >= 0) focusable(node)[at]?.focus({ preventScroll: true });
}

function focusable(node) {
  const found = [...node.querySelectorAll("a[href], button, input, select, textarea, summary")];
  return node.matches?.("a[href], button, summary") ? [node, ...found] : found;
}

/** Tells a screen reader. */
export function announce(text) {
  document.getElementById("announcer").textContent = text;
}
