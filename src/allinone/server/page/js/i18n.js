/**
 * The two languages of the page. Texts live in i18n/en.js and i18n/zh.js; nodes remember their key, so that a switch
 * of language rewrites them in place and loses no state.
 */

import { en } from "./i18n/en.js";
import { zh } from "./i18n/zh.js";
import { lasting } from "./preferences.js";

const TEXTS = { en, zh };
const LOCALES = { en: "en", zh: "zh-CN" };
const listeners = new Set();
let current = document.documentElement.lang.startsWith("zh") ? "zh" : "en";

/** The language in use: "en" or "zh". */
export function language() {
  return current;
}

/** The locale for `Intl`. */
export function locale() {
  return LOCALES[current];
}

/** The text of a key; `{name}` is replaced, and "one|many" chosen by the value `n`. */
export function t(key, values = {}) {
  const text = TEXTS[current][key];
  if (text === undefined) throw new Error(`There is no text ${key}.`);
  const forms = text.split("|");
  const form = forms.length === 2 && values.n !== 1 ? forms[1] : forms[0];
  return form.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? show(values[name]) : whole));
}

function show(value) {
  return typeof value === "number" ? new Intl.NumberFormat(locale()).format(value) : String(value);
}

/** Whether a key has a text. */
export function has(key) {
  return key in TEXTS[current];
}

/** Give a node a text that follows the language. */
export function say(node, key, values = {}) {
  node.textContent = t(key, values);
  node.dataset.i18n = key;
  if (Object.keys(values).length) node.dataset.i18nValues = JSON.stringify(values);
  else delete node.dataset.i18nValues;
}

/** Give a node plain words: those of a user, a model or the server. */
export function sayPlain(node, text) {
  delete node.dataset.i18n;
  delete node.dataset.i18nValues;
  node.textContent = text;
}

/** Give an attribute a text that follows the language. */
export function sayAttribute(node, attribute, key, values = {}) {
  node.setAttribute(attribute, t(key, values));
  const all = JSON.parse(node.dataset.i18nAttributes ?? "{}");
  all[attribute] = [key, values];
  node.dataset.i18nAttributes = JSON.stringify(all);
}

/** Write all texts below a node in the current language. */
export function translate(root = document) {
  for (const node of root.querySelectorAll("[data-i18n]")) {
    node.textContent = t(node.dataset.i18n, JSON.parse(node.dataset.i18nValues ?? "{}"));
  }
  for (const node of root.querySelectorAll("[data-i18n-attributes]")) {
    for (const [attribute, [key, values]] of Object.entries(JSON.parse(node.dataset.i18nAttributes))) {
      node.setAttribute(attribute, t(key, values));
    }
  }
}

/** Switch, remember and rewrite. */
export function setLanguage(name) {
  current = name;
  lasting.set("language", name);
  document.documentElement.lang = LOCALES[name];
  translate();
  for (const listener of listeners) listener();
}

/** Call `listener` after each switch of language. */
export function onLanguage(listener) {
  listeners.add(listener);
}

/** The half of a "中文 · English" description that fits the language, or all of it. */
export function localHalf(description) {
  const parts = description.split(" · ");
  if (parts.length !== 2) return description;
  return current === "zh" ? parts[0] : parts[1];
}

/** 0.934 as "93 %", and never as 100 % unless it is. */
export function percent(value) {
  const digits = value > 0.995 && value < 1 ? 1 : 0;
  const shown = Math.min(value, value < 1 ? 0.999 : 1);
  return new Intl.NumberFormat(locale(), { style: "percent", maximumFractionDigits: digits }).format(shown);
}

/** A number with at most `digits` digits after the point. */
export function number(value, digits = 0) {
  return new Intl.NumberFormat(locale(), { maximumFractionDigits: digits }).format(value);
}

/** Seconds as "40 ms" or "1.7 s". */
export function seconds(value) {
  if (value < 1) return `${number(value * 1000, value < 0.01 ? 1 : 0)} ms`;
  return `${number(value, value < 10 ? 1 : 0)} s`;
}

/** Bytes as "812 MB". */
export function bytes(value) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${number(value, value < 10 && unit > 0 ? 1 : 0)} ${units[unit]}`;
}

/** A moment as people say it: the time today, the day before that. */
export function moment(value) {
  const date = new Date(typeof value === "number" ? value * 1000 : value);
  if (Number.isNaN(date.getTime())) return "";
  const isToday = date.toDateString() === new Date().toDateString();
  const form = isToday ? { hour: "2-digit", minute: "2-digit" } : { month: "short", day: "numeric" };
  return new Intl.DateTimeFormat(locale(), form).format(date);
}
