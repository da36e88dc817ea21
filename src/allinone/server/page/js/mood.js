/** Labels with a face: emoji, colour, probability. Used for moods in the chat and for every label task. */

import { el, freshId } from "./dom.js";
import { percent } from "./i18n.js";

const TONES = {
  positive: "green", negative: "rose", neutral: "slate", happy: "amber", sad: "blue", angry: "red", fear: "violet", surprise: "pink",
  正面: "green", 负面: "rose", 中性: "slate", 快乐: "amber", 悲伤: "blue", 愤怒: "red", 恐惧: "violet", 惊讶: "pink", 平静: "slate",
};
const OTHER_TONES = ["blue", "amber", "green", "violet", "pink", "red", "rose", "slate"];
const VALENCES = { green: 1, amber: 1, rose: -1, blue: -1, red: -1, violet: -1, slate: 0, pink: 0 };

/** The colour of a label: of its meaning where we know it, else by its place among the labels. */
export function tone(label, name = null, place = 0) {
  return TONES[name] ?? TONES[label] ?? OTHER_TONES[place % OTHER_TONES.length];
}

/** From -1 (bad) to 1 (good), weighted by probability; null for labels that are not moods. */
export function valence(mood) {
  const labels = Object.keys(mood.probs ?? {});
  if (labels.length && labels.every((label) => label in TONES)) {
    return labels.reduce((sum, label) => sum + mood.probs[label] * VALENCES[TONES[label]], 0);
  }
  return mood.name in TONES ? VALENCES[TONES[mood.name]] * (mood.p_max ?? 1) : null;
}

/** An emoji in the font that has it in colour; it says nothing to screen readers, the words beside it do. */
export function face(emoji) {
  return emoji ? el("span", { class: "emoji", "aria-hidden": "true" }, emoji) : null;
}

/**
 * All labels with their probabilities as bars, the most likely first.
 *
 * `emojis`: label -> emoji, where known.
 */
export function bars(probs, { emojis = {}, names = {}, best = null } = {}) {
  const labels = Object.keys(probs);
  const sorted = [...labels].sort((a, b) => probs[b] - probs[a]);
  const rows = sorted.map((label) => {
    const fillNode = el("span", { class: `bar-fill tone-${tone(label, names[label], labels.indexOf(label))}` });
    fillNode.style.width = `${Math.max(0.5, 100 * probs[label])}%`;
    return el(
      "li",
      { class: label === best ? "bar is-best" : "bar" },
      el("span", { class: "bar-label" }, face(emojis[label]), el("bdi", {}, label)),
      el("span", { class: "bar-track", "aria-hidden": "true" }, fillNode),
      el("span", { class: "bar-value" }, percent(probs[label])),
    );
  });
  return el("ul", { class: "bars" }, rows);
}

/** The chip: emoji, label, colour; all probabilities on hover and on focus; its own for screen readers too. */
export function moodChip(mood) {
  const tipId = freshId("tip");
  const tip = el("div", { class: "tip", role: "tooltip", id: tipId }, bars(mood.probs ?? {}, { best: mood.label, emojis: { [mood.label]: mood.emoji } }));
  const chip = el(
    "button",
    { type: "button", class: `chip tone-${tone(mood.label, mood.name)}`, "aria-describedby": tipId },
    el("span", { class: "visually-hidden", i18n: "chat.mood" }),
    face(mood.emoji),
    el("bdi", {}, mood.label),
    mood.p_max !== null && mood.p_max !== undefined && el("span", { class: "visually-hidden" }, ` ${percent(mood.p_max)}`),
  );
  const holder = el("div", { class: "mood" }, chip, tip);
  const show = (isShown) => {
    const room = holder.getBoundingClientRect().top - (holder.closest(".log") ?? document.body).getBoundingClientRect().top;
    holder.classList.toggle("is-down", room < tip.offsetHeight + 10); // above it hides nothing: what was said stands on the right
    holder.classList.toggle("is-shown", isShown);
  };
  chip.addEventListener("focus", () => show(true));
  chip.addEventListener("click", () => show(true)); // a tap focuses nothing on some phones
  chip.addEventListener("blur", () => show(false));
  holder.addEventListener("mouseenter", () => show(true));
  holder.addEventListener("mouseleave", () => show(document.activeElement === chip));
  holder.addEventListener("keydown", (event) => event.key === "Escape" && show(false));
  return holder;
}
