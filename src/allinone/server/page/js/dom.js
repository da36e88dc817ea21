/**
 * Making elements. Everything that a user or a model says goes through text nodes; nothing here, or anywhere on this
 * page, parses HTML. Knows nothing of the API.
 */

import { say, sayAttribute } from "./i18n.js";

const SVG = "http://www.w3.org/2000/svg";
const SPOKEN = { i18nLabel: "aria-label", i18nTitle: "title", i18nPlaceholder: "placeholder" };

/**
 * An element.
 *
 * `attributes` may hold, beside plain attributes (`false`, null and undefined leave one out, `true` makes it empty):
 * `on` (event name -> handler), `data` (dataset), `props` (properties, such as value), and texts by key: `i18n` for the
 * content, `i18nLabel`, `i18nTitle` and `i18nPlaceholder` for attributes, each a key or [key, values].
 */
export function el(tag, attributes = {}, ...children) {
  return build(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function svg(tag, attributes = {}, ...children) {
  return build(document.createElementNS(SVG, tag), attributes, children);
}

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name === "on") for (const [event, handler] of Object.entries(value)) node.addEventListener(event, handler);
    else if (name === "data") Object.assign(node.dataset, value);
    else if (name === "props") Object.assign(node, value);
    else if (name === "i18n") say(node, ...[value].flat());
    else if (name in SPOKEN) sayAttribute(node, SPOKEN[name], ...[value].flat());
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...flatten(children));
  return node;
}

function flatten(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
}

/** Replace the content of a node. */
export function fill(node, ...children) {
  node.replaceChildren(...flatten(children));
  return node;
}

let lastId = 0;

/** A fresh id, for labels and descriptions. */
export function freshId(prefix = "id") {
  lastId += 1;
  return `${prefix}-${lastId}`;
}

/** A download of text made here. */
export function download(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = el("a", { href: url, download: name, hidden: true });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
