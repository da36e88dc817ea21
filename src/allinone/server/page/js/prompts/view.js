/** The prompts: the files that the tasks are made of, a draft of one, and what is done with it before it is saved. */

import { explain, get, onKey, sleep } from "../api.js";
import { note } from "../announce.js";
import { ask, askLine } from "../dialogs.js";
import { diff, lines, renderDiff, shorten } from "../diff.js";
import { el, fill } from "../dom.js";
import { say, t } from "../i18n.js";
import { icon } from "../icons.js";
import { segments } from "../segments.js";
import { Cases } from "./cases.js";
import { Compare } from "./compare.js";
import { Draft } from "./draft.js";
import { Editor } from "./editor.js";

const CHECK_AFTER_MS = 350;

export class PromptsView {
  constructor() {
    this.records = [];
    this.draft = null;
    this.menu = el("nav", { class: "task-menu", i18nLabel: "prompts.files" });
    this.select = el("select", { class: "input task-select", i18nLabel: "prompts.files", on: { change: () => (location.hash = `#/prompts/${encodeURIComponent(this.select.value)}`) } });
    this.title = el("h2", { class: "title-1" });
    this.facts = el("p", { class: "row muted small" });
    this.state = el("p", { class: "editor-state small", role: "status" });
    this.conflict = el("div", { class: "conflict", hidden: true });
    this.editor = new Editor("prompts.text", { onInput: (text) => this.onEdit({ text }) });
    this.compare = new Compare(() => this.draft);
    this.cases = new Cases(() => this.draft, (cases) => this.onEdit({ cases }));
    this.parts = segments("prompts.parts", [
      { name: "edit", key: "prompts.edit", node: this.editor.node },
      { name: "compare", key: "compare.name", node: el("div", { class: "card" }, this.compare.node) },
      { name: "cases", key: "cases.name", node: this.cases.node },
    ]);
    this.panel = el("div", { class: "task-place", hidden: true }, el("div", { class: "task-head" }, this.title, this.facts), this.makeBar(), this.conflict, this.parts.panels);
    this.problem = el("p", { class: "notice notice-bad", role: "alert", hidden: true });
    this.node = el("div", { class: "page" }, el("div", { class: "page-inner task-page" }, this.menu, this.select, el("div", { class: "task-place" }, this.problem, this.panel)));
    this.loading = this.load();
    onKey(() => this.load());
  }

  makeBar() {
    const tool = (name, key, act, className = "button") => el("button", { type: "button", class: className, on: { click: act } }, icon(name), el("span", { i18n: key }));
    this.saving = tool("save", "save", () => this.save(), "button button-primary");
    this.discarding = tool("trash", "prompts.discard_short", () => this.discard());
    this.copying = tool("copy", "prompts.copy_short", () => this.copy());
    return el("div", { class: "prompt-bar" }, this.parts.list, el("div", { class: "row row-end" }, this.state, this.copying, this.discarding, this.saving));
  }

  async load() {
    try {
      this.records = (await get("/v1/prompts")).prompts;
      this.drawMenu();
    } catch (error) {
      this.fail(error);
    }
  }

  fail(error) {
    this.problem.hidden = false;
    fill(this.problem, icon("warning"), el("span", {}, explain(error)));
  }

  async open(name) {
    await this.loading;
    const wanted = name || this.draft?.name || this.records[0]?.name;
    if (!wanted || wanted === this.draft?.name) return;
    try {
      this.show(await Draft.open(wanted));
    } catch (error) {
      this.panel.hidden = true;
      this.draft = null;
      this.fail(error);
    }
  }

  /** Where the keyboard begins. */
  findStart() {
    return this.panel.hidden ? null : this.panel.querySelector("[role=tab][aria-selected=true]");
  }

  drawMenu() {
    const drafts = new Set(Draft.names());
    const known = this.records.map(({ name }) => name);
    const broken = new Set(this.records.filter(({ error }) => error).map(({ name }) => name));
    const names = [...known, ...[...drafts].filter((name) => !known.includes(name))].sort();
    fill(this.menu, el("h2", { class: "menu-head", i18n: "prompts.files" }), el("ul", {}, names.map((name) => el("li", {}, this.link(name, drafts.has(name), broken.has(name))))));
    fill(this.select, names.map((name) => el("option", { value: name }, drafts.has(name) ? `${name} •` : name)));
    if (this.draft) this.select.value = this.draft.name;
  }

  link(name, hasDraft, isBroken) {
    const isCurrent = name === this.draft?.name;
    return el("a", { href: `#/prompts/${encodeURIComponent(name)}`, class: "task-link", "aria-current": isCurrent && "page" }, el("code", {}, name), hasDraft && el("span", { class: "badge", i18n: "prompts.draft" }), isBroken && el("span", { class: "badge is-bad", i18n: "prompts.broken" }));
  }

  show(draft) {
    this.draft = draft;
    this.problem.hidden = true;
    this.panel.hidden = false;
    this.title.textContent = `${draft.name}.prompt`;
    this.editor.value = draft.text;
    this.cases.editor.value = draft.cases;
    this.editor.isReadOnly = this.cases.editor.isReadOnly = draft.stored.is_editable === false;
    this.compare.clear();
    this.cases.clear();
    this.conflict.hidden = true;
    this.drawMenu();
    this.showFacts();
    this.checkSoon(0);
    if (draft.isBehind) this.showConflict();
  }

  showFacts() {
    const { layer, version, is_editable: isEditable } = this.draft.stored;
    fill(
      this.facts,
      el("span", { class: "badge" }, layer ?? t("prompts.new")),
      version && el("span", { i18n: ["tasks.version", { version: version.slice(0, 8) }] }),
      isEditable === false && el("span", { i18n: "prompts.read_only" }),
    );
    this.showButtons();
  }

  showButtons() {
    const { draft, editor, cases } = this;
    const isChanged = draft.isChanged;
    this.discarding.disabled = !isChanged;
    this.saving.disabled = !isChanged || editor.problems.length > 0 || cases.editor.problems.length > 0;
  }

  onEdit(change) {
    const had = this.draft.isChanged;
    this.draft.edit(change);
    if (had !== this.draft.isChanged) this.drawMenu();
    this.showButtons();
    this.checkSoon(CHECK_AFTER_MS);
  }

  /** Have the text checked, unless it changes again before that. */
  async checkSoon(ms) {
    this.checking?.abort();
    const { signal } = (this.checking = new AbortController());
    try {
      await sleep(ms, signal);
      const problems = await this.draft.check(signal);
      this.editor.showErrors(problems.filter(({ file }) => file !== "cases"));
      this.cases.editor.showErrors(problems.filter(({ file }) => file === "cases"));
      this.showState(problems.length);
    } catch (error) {
      if (error.name === "AbortError") return;
      this.state.className = "editor-state small is-bad";
      fill(this.state, explain(error));
    }
    this.showButtons();
  }

  showState(numErrors) {
    this.state.className = numErrors ? "editor-state small is-bad" : "editor-state small is-good";
    const words = el("span");
    if (numErrors) say(words, "prompts.errors", { n: numErrors });
    else say(words, "prompts.fine");
    fill(this.state, icon(numErrors ? "warning" : "check"), words);
  }

  async save() {
    const { draft } = this;
    this.saving.disabled = true;
    try {
      await draft.save();
      note(t("prompts.saved"));
      await this.load();
      this.show(draft);
      dispatchEvent(new Event("allinone:prompts-saved"));
    } catch (error) {
      await this.onRefused(error);
    }
    this.showButtons();
  }

  async onRefused(error) {
    const errors = error.problem?.errors?.filter(({ message }) => message) ?? [];
    if (error.status === 409) await this.showTheirs(error);
    else if (errors.length) this.editor.showErrors(errors);
    else note(explain(error), "bad");
  }

  async showTheirs(error) {
    try {
      await this.draft.refresh();
      this.showConflict();
    } catch {
      note(explain(error), "bad");
    }
  }

  /** Somebody else saved the file since this draft was begun: show what differs, and let people choose. */
  showConflict() {
    const { draft } = this;
    const theirs = el("button", { type: "button", class: "button", i18n: "conflict.theirs", on: { click: () => (draft.discard(), this.show(draft)) } });
    const mine = el("button", { type: "button", class: "button button-primary", i18n: "conflict.mine", on: { click: () => (draft.rebase(), this.show(draft), this.saving.focus()) } });
    fill(
      this.conflict,
      el("div", { class: "notice notice-warn", role: "alert" }, icon("warning"), el("div", {}, el("strong", { i18n: "conflict.title" }), el("p", { i18n: "conflict.more" }))),
      el("div", { class: "conflict-diff", tabindex: "0", role: "region", i18nLabel: "conflict.diff" }, renderDiff(shorten(diff(draft.stored.text, draft.text, lines)))),
      el("div", { class: "row" }, mine, theirs),
    );
    this.conflict.hidden = false;
  }

  async discard() {
    if (!(await ask({ title: "prompts.discard", text: el("p", { i18n: "prompts.really" }), confirm: "prompts.discard", isDangerous: true }))) return;
    const { draft } = this;
    draft.discard();
    if (!draft.isNew) return this.show(draft);
    this.draft = null;
    this.drawMenu();
    location.hash = `#/prompts/${encodeURIComponent(this.records[0].name)}`;
  }

  async copy() {
    const name = await askLine({ title: "prompts.copy", label: "prompts.new_name", value: `${this.draft.name.split(".")[0]}-2`, confirm: "prompts.copy", maxLength: 64 });
    if (name === null) return;
    if (this.records.some((record) => record.name === name)) return note(t("prompts.taken", { name }), "bad");
    this.draft.copyAs(name);
    location.hash = `#/prompts/${encodeURIComponent(name)}`;
  }
}
