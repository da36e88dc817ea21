/** The tasks: a list, and for each one that was opened a panel that keeps what is in it. */

import { explain, get, onKey } from "../api.js";
import { el, fill } from "../dom.js";
import { language, localHalf, onLanguage, t } from "../i18n.js";
import { icon } from "../icons.js";
import { segments } from "../segments.js";
import { BatchPanel } from "./batch_panel.js";
import { SingleForm } from "./single.js";

const KINDS = ["label", "text", "json", "chat"];

export class TasksView {
  constructor() {
    this.tasks = [];
    this.panels = new Map(); // name -> {node, version}
    this.wanted = "";
    this.menu = el("nav", { class: "task-menu", i18nLabel: "view.tasks" });
    this.select = el("select", { class: "input task-select", i18nLabel: "tasks.choose", on: { change: () => (location.hash = `#/tasks/${this.select.value}`) } });
    this.place = el("div", { class: "task-place" });
    this.node = el("div", { class: "page" }, el("div", { class: "page-inner task-page" }, this.menu, this.select, this.place));
    onLanguage(() => this.draw());
    onKey(() => this.load());
    addEventListener("allinone:prompts-saved", () => this.load());
    this.loading = this.load();
  }

  async load() {
    try {
      this.tasks = (await get("/v1/tasks")).tasks;
      this.draw();
      this.show();
    } catch (error) {
      fill(this.place, el("p", { class: "notice notice-bad", role: "alert" }, icon("warning"), el("span", {}, explain(error))));
    }
  }

  async open(name) {
    this.wanted = name;
    await this.loading;
    this.show();
  }

  /** Where the keyboard begins. */
  findStart() {
    return this.panels.get(this.shown)?.node.querySelector("[role=tab][aria-selected=true]");
  }

  draw() {
    const groups = KINDS.map((kind) => [kind, this.tasks.filter((task) => task.kind === kind)]).filter(([, tasks]) => tasks.length);
    fill(this.menu, groups.map(([kind, tasks]) => el("section", {}, el("h2", { class: "menu-head", i18n: `kind.${kind}` }), el("ul", {}, tasks.map((task) => el("li", {}, this.link(task)))))));
    fill(this.select, groups.map(([kind, tasks]) => el("optgroup", { label: t(`kind.${kind}`) }, tasks.map((task) => el("option", { value: task.name }, hasChineseTitle(task) ? `${titleOf(task)} (${task.name})` : titleOf(task))))));
    for (const task of this.tasks) {
      const panel = this.panels.get(task.name);
      if (panel) sayHead(panel.node, task);
    }
    this.mark();
  }

  link(task) {
    const { name, description } = task;
    return el("a", { href: `#/tasks/${encodeURIComponent(name)}`, class: "task-link", title: localHalf(description), data: { name } }, el("span", {}, titleOf(task)), hasChineseTitle(task) && el("code", { class: "muted" }, name));
  }

  mark() {
    for (const link of this.menu.querySelectorAll("a")) {
      if (link.dataset.name === this.shown) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    if (this.shown) this.select.value = this.shown;
  }

  show() {
    if (!this.tasks.length) return;
    const task = this.tasks.find(({ name }) => name === this.wanted);
    if (this.wanted && !task) {
      fill(this.place, el("p", { class: "notice notice-bad" }, icon("warning"), el("span", { i18n: ["tasks.unknown", { name: this.wanted }] })));
      this.panels.clear();
      return;
    }
    const chosen = task ?? this.tasks.find(({ kind }) => kind === "label") ?? this.tasks[0];
    this.shown = chosen.name;
    const kept = this.panels.get(chosen.name);
    if (!kept || (kept.version !== chosen.version && !kept.batch.isRunning)) {
      kept?.node.remove();
      this.panels.set(chosen.name, makePanel(chosen));
      this.place.append(this.panels.get(chosen.name).node);
    }
    for (const child of [...this.place.children]) {
      const isPanel = [...this.panels.values()].some(({ node }) => node === child);
      if (isPanel) child.hidden = child !== this.panels.get(chosen.name).node;
      else child.remove();
    }
    this.mark();
  }
}

/** Whether the language is Chinese and the description begins with a Chinese name: "情感分析 · sentiment polarity…". */
function hasChineseTitle({ description }) {
  return language() === "zh" && description.split(" · ").length === 2;
}

/** What people call a task: its Chinese name where there is one, else its own: "Sentiment (en)". */
function titleOf(task) {
  if (hasChineseTitle(task)) return localHalf(task.description);
  const [name, ...variants] = task.name.split(".");
  const words = name.replace(/[-_]+/g, " ");
  return [words.charAt(0).toUpperCase() + words.slice(1), ...variants.map((variant) => `(${variant})`)].join(" ");
}

/** Write the head of a task's panel in the language. */
function sayHead(node, task) {
  const about = node.querySelector(".task-about");
  node.querySelector(".task-title").textContent = titleOf(task);
  about.hidden = hasChineseTitle(task);
  about.textContent = localHalf(task.description);
}

function makePanel(task) {
  const single = new SingleForm(task);
  const batch = new BatchPanel(task);
  const parts = segments("tasks.how", [
    { name: "one", key: "tasks.one", node: single.node },
    { name: "file", key: "tasks.file", node: batch.node },
  ]);
  const node = el(
    "div",
    { class: "task-panel" },
    el(
      "div",
      { class: "task-head" },
      el("h2", { class: "title-1 task-title" }),
      el("p", { class: "task-about" }),
      el("p", { class: "row muted small" }, el("code", {}, task.name), el("span", { class: "badge", i18n: `kind.${task.kind}` }), el("span", { i18n: ["tasks.version", { version: task.version.slice(0, 8) }] })),
    ),
    parts.list,
    parts.panels,
  );
  sayHead(node, task);
  return { node, version: task.version, batch };
}
