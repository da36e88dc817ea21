/** An answer in a small place: a label as a chip, a text as it is, an error as an error. */

import { el } from "../dom.js";
import { percent } from "../i18n.js";
import { face, tone } from "../mood.js";

/** A result of the API, or {error}; `other` is the answer beside it. */
export function smallAnswer(result) {
  if (result.error) return el("span", { class: "is-bad" }, [result.error.detail || result.error.title, result.error.hint].filter(Boolean).join(" "));
  const { kind, label, name, emoji, p_max: p, probs, text } = result;
  if (kind !== "label") return el("span", { class: "text-box" }, text);
  return el("span", { class: `chip tone-${tone(label, name, Object.keys(probs).indexOf(label))}` }, face(emoji), el("bdi", {}, label), el("span", { class: "chip-p" }, percent(p)));
}
