/** One answer of a task: label with bars, text with its changes, or JSON; what it cost; thumbs. */

import { copyButton } from "../copy.js";
import { countChanges, diff, renderDiff } from "../diff.js";
import { el } from "../dom.js";
import { percent, seconds } from "../i18n.js";
import { feedbackButtons } from "../feedback.js";
import { bars, face, tone } from "../mood.js";

const CORRECTING = new Set(["typo", "grammar", "polish"]);

/** Whether a task says its input again, corrected: then the changes are what people want to see. */
export function isCorrecting(task) {
  return CORRECTING.has(task.name.split(".")[0]);
}

/** The answer to `text` as a node. */
export function resultView(task, text, result) {
  const content = { label: labelAnswer, json: jsonAnswer }[result.kind] ?? textAnswer;
  return el("article", { class: "card result" }, content(task, text, result), foot(result));
}

function labelAnswer(task, _text, { label, name, emoji, probs, p_max: p }) {
  const emojis = Object.fromEntries(task.labels.map((known) => [known.label, known.emoji]));
  const names = Object.fromEntries(task.labels.map((known) => [known.label, known.name]));
  return el(
    "div",
    { class: "label-answer" },
    el("p", { class: `label-best tone-${tone(label, name, Object.keys(probs).indexOf(label))}` }, face(emoji), el("bdi", {}, label), el("span", { class: "label-p" }, percent(p))),
    bars(probs, { emojis, names, best: label }),
  );
}

function jsonAnswer(_task, _text, { data }) {
  return el("pre", { class: "json-answer", tabindex: "0", i18nLabel: "result.json" }, JSON.stringify(data, null, 2));
}

function textAnswer(task, before, { text }) {
  const plain = el("div", { class: "text-answer text-box" }, text);
  if (!isCorrecting(task)) return plain;
  const parts = diff(before, text);
  const n = countChanges(parts);
  const changes = renderDiff(parts);
  const toggle = el("button", { type: "button", class: "button button-small", "aria-pressed": "true", i18n: "result.show_changes" });
  toggle.addEventListener("click", () => {
    const isOn = toggle.getAttribute("aria-pressed") !== "true";
    toggle.setAttribute("aria-pressed", String(isOn));
    changes.hidden = !isOn;
    plain.hidden = isOn;
  });
  plain.hidden = true;
  const words = el("span", { class: "muted small", i18n: n ? ["result.changes", { n }] : "result.no_changes" });
  return el("div", { class: "diff-answer" }, el("div", { class: "row" }, words, el("span", { class: "row-end" }, toggle)), changes, plain);
}

function foot(result) {
  const { usage, timings, cached, finish_reason: reason } = result;
  const numIn = usage.num_prompt_tokens;
  const facts = [
    el("span", {}, seconds(timings.total_s)),
    el("span", { i18n: ["result.tokens", { n: numIn + usage.num_output_tokens }] }),
    cached && el("span", { i18n: "result.cached" }),
    usage.truncated_tokens > 0 && el("span", { class: "is-warning", i18n: ["result.truncated", { n: usage.truncated_tokens }] }),
    reason !== "stop" && el("span", { class: "is-warning", i18n: `result.${reason}` }),
  ];
  const copied = result.kind === "label" ? result.label : result.text;
  return el("div", { class: "result-foot" }, el("p", { class: "facts muted small" }, facts), el("div", { class: "tools row-end" }, copyButton(() => copied), feedbackButtons(result.id)));
}
