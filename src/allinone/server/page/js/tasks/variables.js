/** The variables of a task: controls made from their declaration, and values of the declared type. Draws no form. */

import { el } from "../dom.js";
import { field } from "../dialogs.js";

/** The variables beside `text`. */
export function others(task) {
  return task.variables.filter(({ name }) => name !== "text");
}

/** A control for a variable, its labelled node, and `read()`: the value, undefined where nothing was given. */
export function variableField(variable) {
  const control = makeControl(variable);
  const read = () => (variable.type === "boolean" && !variable.is_array ? readBoolean(control, variable) : parse(variable, control.value));
  if (control.type === "checkbox") return { node: el("div", { class: "field" }, el("label", { class: "check" }, control, labelOf(variable)), hintOf(variable)), read };
  const hint = [hintOf(variable), variable.is_array && el("span", { i18n: "form.one_per_line" })].filter(Boolean);
  return { node: field(labelOf(variable), control, hint.length ? hint.flatMap((part, i) => (i ? [" ", part] : [part])) : null), read };
}

function labelOf({ name, is_required: isRequired }) {
  return [el("code", {}, name), !isRequired && el("span", { class: "muted small", i18n: "form.optional" })].filter(Boolean).flatMap((part, i) => (i ? [" ", part] : [part]));
}

function hintOf({ description }) {
  return description ? el("span", {}, description) : null;
}

function makeControl(variable) {
  const { type, is_array: isArray, is_required: required, choices, default: preset } = variable;
  if (isArray) return el("textarea", { class: "input", rows: 3, required, props: { value: (preset ?? []).join("\n") } });
  if (choices.length) {
    const options = choices.map((choice) => el("option", { value: choice, selected: choice === preset }, choice));
    return el("select", { class: "input", required }, !required && preset === null && el("option", { value: "" }, "—"), options);
  }
  if (type === "boolean") return el("input", { type: "checkbox", props: { checked: preset === true } });
  if (type === "integer" || type === "number") return el("input", { type: "number", class: "input", required, step: type === "integer" ? 1 : "any", props: { value: preset ?? "" } });
  return el("input", { type: "text", class: "input", required, props: { value: preset ?? "" } });
}

function readBoolean(control, { is_required: isRequired, default: preset }) {
  return control.checked || isRequired || preset !== null ? control.checked : undefined;
}

/** A value from what stands in a control or a cell; undefined for nothing. Raises: TypeError. */
export function parse(variable, text) {
  if (!variable.is_array) return text.trim() === "" ? undefined : parseOne(variable, text);
  const items = text.split("\n").map((item) => item.trim()).filter(Boolean);
  return items.length ? items.map((item) => parseOne(variable, item)) : undefined;
}

/** A value from a cell of a table, where a list is JSON or its items between commas. Raises: TypeError. */
export function parseCell(variable, cell) {
  if (typeof cell !== "string") return cell ?? undefined;
  if (!variable.is_array) return parse(variable, cell);
  if (!cell.trimStart().startsWith("[")) return parse(variable, cell.replace(/[,，]/g, "\n"));
  try {
    return JSON.parse(cell);
  } catch {
    throw new TypeError(variable.name);
  }
}

function parseOne({ name, type }, text) {
  if (type === "integer" || type === "number") {
    const value = Number(text);
    if (!Number.isFinite(value) || (type === "integer" && !Number.isInteger(value))) throw new TypeError(name);
    return value;
  }
  if (type === "boolean") {
    const word = text.trim().toLowerCase();
    if (word !== "true" && word !== "false") throw new TypeError(name);
    return word === "true";
  }
  return text;
}
