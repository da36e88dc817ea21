/** Telling people what happened: a live region for screen readers, and short notes for everybody. */

import { el } from "./dom.js";
import { icon } from "./icons.js";

const NOTE_MS = 5_000;

/** Have screen readers say something, once, after what they are saying now. */
export function announce(text) {
  const region = document.getElementById("announcer");
  region.textContent = "";
  setTimeout(() => (region.textContent = text), 60); // the same words twice are two announcements
}

/** A note at the edge of the window that goes by itself; `tone` is "good" or "bad". */
export function note(text, tone = "good") {
  const toast = el("div", { class: `toast toast-${tone}` }, icon(tone === "bad" ? "warning" : "check"), el("span", {}, text));
  const place = document.getElementById("toasts");
  while (place.childElementCount > 2) place.firstElementChild.remove();
  place.append(toast);
  announce(text);
  setTimeout(() => toast.remove(), tone === "bad" ? 2 * NOTE_MS : NOTE_MS);
}
