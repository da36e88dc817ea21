/** Small questions in a modal `<dialog>`: it keeps the focus, closes on Escape and gives the focus back. */

import { el, freshId } from "./dom.js";

/**
 * Ask, and wait for the answer.
 *
 * `fields` are nodes that stand between text and buttons; `read` makes the answer from them. Gives null when dismissed.
 */
export function ask({ title, text = null, fields = [], confirm, cancel = "cancel", isDangerous = false, read = () => true }) {
  const titleId = freshId("dialog");
  const no = el("button", { type: "button", class: "button", i18n: cancel });
  const yes = el("button", { type: "submit", class: `button ${isDangerous ? "button-danger" : "button-primary"}`, i18n: confirm });
  const form = el(
    "form",
    { method: "dialog", class: "dialog-form" },
    el("h2", { id: titleId, i18n: title }),
    text,
    fields,
    el("div", { class: "dialog-buttons" }, no, yes),
  );
  const dialog = el("dialog", { class: "dialog", "aria-labelledby": titleId }, form);
  document.body.append(dialog);
  return new Promise((resolve) => {
    let answer = null;
    no.addEventListener("click", () => dialog.close());
    form.addEventListener("submit", () => (answer = read()));
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(answer);
    });
    dialog.showModal();
    (dialog.querySelector("input, textarea, select") ?? (isDangerous ? no : yes)).focus();
  });
}

/** A labelled control for a dialog or form; `control` gets an id, `hint` a description. */
export function field(label, control, hint = null) {
  control.id ||= freshId("field");
  const parts = [el("label", { for: control.id, class: "field-label" }, label), control];
  if (hint) {
    const hintId = freshId("hint");
    control.setAttribute("aria-describedby", hintId);
    parts.push(el("p", { class: "field-hint", id: hintId }, hint));
  }
  return el("div", { class: "field" }, parts);
}

/** A text in the language of the page, as a node that follows it. */
export function text(key, values = {}) {
  return el("span", { i18n: [key, values] });
}

/** Ask for one line of text; null when dismissed. */
export async function askLine({ title, label, value = "", confirm, maxLength = 200 }) {
  const input = el("input", { type: "text", class: "input", maxlength: maxLength, required: true, autocomplete: "off", props: { value } });
  const answer = ask({ title, fields: [field(text(label), input)], confirm, read: () => input.value.trim() });
  input.select();
  return (await answer) || null;
}
