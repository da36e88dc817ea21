/** The labels of a label task: choose some, or give others where the task takes them. */

import { el } from "../dom.js";
import { field, text } from "../dialogs.js";
import { face, tone } from "../mood.js";

/** The fieldset and `read()`: the labels to ask for, undefined for all of the task's own; null for tasks without. */
export function labelChoice(task) {
  if (task.kind !== "label") return { node: null, read: () => undefined };
  const boxes = task.labels.map(({ label, name, emoji, description }, i) => {
    const box = el("input", { type: "checkbox", value: label, props: { checked: true } });
    const words = [face(emoji), el("bdi", {}, label)];
    return { box, node: el("label", { class: `check label-check tone-${tone(label, name, i)}`, title: description || null }, box, words) };
  });
  const own = el("textarea", { class: "input", rows: 3 });
  const node = el(
    "fieldset",
    { class: "labels" },
    el("legend", { class: "field-label", i18n: "form.labels" }),
    el("div", { class: "row" }, boxes.map((entry) => entry.node)),
    task.open_labels && el("details", {}, el("summary", { i18n: "form.own_labels" }), field(text("form.own_labels_name"), own, text("form.one_per_line"))),
  );
  const read = () => {
    const given = own.value.split("\n").map((label) => label.trim()).filter(Boolean);
    if (given.length) return given;
    const chosen = boxes.filter(({ box }) => box.checked).map(({ box }) => box.value);
    return chosen.length === boxes.length ? undefined : chosen;
  };
  return { node, read };
}
