/** A file: chosen or dropped, looked at, run as a batch, taken home as a file again. */

import { announce, note } from "../announce.js";
import { el, fill, freshId } from "../dom.js";
import { number, t } from "../i18n.js";
import { icon } from "../icons.js";
import { field, text } from "../dialogs.js";
import { Batch } from "./batch.js";
import { BatchView } from "./batch_view.js";
import { FileError, MAX_FILE_BYTES, readInputFile } from "./input_file.js";
import { labelChoice } from "./labels.js";
import { others, parseCell, variableField } from "./variables.js";

const NUM_PREVIEW_ROWS = 3;

export class BatchPanel {
  constructor(task) {
    this.task = task;
    this.batch = null;
    this.file = null;
    this.input = el("input", { type: "file", class: "visually-hidden", id: freshId("file"), accept: ".csv,.tsv,.jsonl,.ndjson,.txt,text/plain,text/csv", on: { change: () => this.choose(this.input.files[0]) } });
    this.setup = el("div", { class: "batch-setup" });
    this.place = el("div", {});
    this.node = el("div", { class: "batch" }, this.makeDrop(), this.setup, this.place);
  }

  makeDrop() {
    const drop = el(
      "label",
      { class: "drop", for: this.input.id },
      icon("upload"),
      el("span", { class: "drop-title", i18n: "batch.drop" }),
      el("span", { class: "muted small", i18n: ["batch.kinds", { limit: MAX_FILE_BYTES / 2 ** 20 }] }),
    );
    const holder = el("div", { class: "drop-holder" }, this.input, drop);
    const mark = (isOver) => drop.classList.toggle("is-over", isOver);
    holder.addEventListener("dragover", (event) => (event.preventDefault(), mark(true)));
    holder.addEventListener("dragleave", () => mark(false));
    holder.addEventListener("drop", (event) => {
      event.preventDefault();
      mark(false);
      this.choose(event.dataTransfer.files[0]);
    });
    return holder;
  }

  get isRunning() {
    return this.batch?.state === "running" || this.batch?.state === "waiting";
  }

  async choose(file) {
    this.input.value = ""; // the same file can be chosen again
    if (!file) return;
    if (this.isRunning) return note(t("batch.busy"), "bad");
    this.file = null;
    this.setup.hidden = false;
    fill(this.place);
    try {
      this.file = { name: file.name, ...(await readInputFile(file)) };
      this.showSetup();
    } catch (error) {
      if (!(error instanceof FileError)) throw error;
      const words = el("span", { i18n: [error.key, error.values] });
      fill(this.setup, el("p", { class: "notice notice-bad", role: "alert" }, icon("warning"), el("span", {}, el("bdi", {}, file.name), ": ", words)));
    }
  }

  showSetup() {
    const { name, columns, entries, encoding, format } = this.file;
    const numBad = entries.filter(({ error }) => error).length;
    const options = columns.map((column) => el("option", { value: column }, column));
    this.column = el("select", { class: "input" }, options);
    if (columns.includes("text")) this.column.value = "text";
    this.labels = labelChoice(this.task);
    this.fields = others(this.task).map((variable) => ({ variable, ...variableField({ ...variable, is_required: false }) }));
    const facts = [["batch.rows", { n: entries.length - numBad }], numBad > 0 && ["batch.bad_rows", { n: numBad }], encoding !== "utf-8" && ["batch.encoding", { encoding: encoding.toUpperCase() }]].filter(Boolean);
    const start = el("button", { type: "submit", class: "button button-primary" }, icon("play"), el("span", { i18n: "batch.start" }));
    fill(
      this.setup,
      el(
        "form",
        { class: "card form", on: { submit: (event) => this.start(event) } },
        el("div", { class: "file-head" }, el("h3", { class: "title-2" }, el("bdi", {}, name)), el("p", { class: "facts muted small" }, facts.map((i18n) => el("span", { i18n })))),
        this.preview(),
        format !== "txt" && field(text("batch.column"), this.column),
        this.fields.map(({ node }) => node),
        this.fields.length > 0 && format !== "txt" && el("p", { class: "field-hint", i18n: "batch.variables" }),
        this.labels.node,
        el("div", { class: "row" }, start),
      ),
    );
    announce(`${name}: ${facts.map((fact) => t(...fact)).join(", ")}`);
  }

  preview() {
    const { columns, entries } = this.file;
    const rows = entries.filter(({ cells }) => cells).slice(0, NUM_PREVIEW_ROWS);
    const cell = (value) => (value === undefined || value === null ? "" : typeof value === "string" ? value : JSON.stringify(value));
    return el(
      "div",
      { class: "table-wrap preview", tabindex: "0", role: "region", i18nLabel: "batch.preview" },
      el(
        "table",
        {},
        el("thead", {}, el("tr", {}, el("th", { scope: "col", i18n: "batch.line" }), columns.map((name) => el("th", { scope: "col" }, name)))),
        el("tbody", {}, rows.map(({ line, cells }) => el("tr", {}, el("td", { class: "muted" }, number(line)), columns.map((name) => el("td", {}, cell(cells[name]).slice(0, 200)))))),
      ),
    );
  }

  start(event) {
    event.preventDefault();
    let preset;
    try {
      preset = this.fields.map(({ variable, read }) => [variable.name, read()]).filter(([, value]) => value !== undefined);
    } catch (error) {
      return note(t("form.bad_value", { name: error.message }), "bad");
    }
    this.batch = new Batch({ task: this.task, entries: this.file.entries, labels: this.labels.read(), toInput: this.inputMaker(this.column.value, preset) });
    const view = new BatchView(this.batch, { task: this.task, file: this.file, onAgain: () => this.again() });
    this.setup.hidden = true;
    fill(this.place, view.node);
    view.start();
  }

  again() {
    this.setup.hidden = false;
    fill(this.place);
    this.setup.querySelector("button[type=submit]")?.focus();
  }

  /** Cells -> {text, variables}: declared columns are variables, the form's values fill what a row leaves out. */
  inputMaker(column, preset) {
    const declared = this.fields.map(({ variable }) => variable);
    return (cells) => {
      const value = cells[column];
      if (typeof value !== "string") throw new Error(t(value === undefined ? "batch.no_text" : "batch.not_text", { column }));
      const own = declared.filter(({ name }) => name in cells && name !== column).map((variable) => [variable.name, parseOwn(variable, cells[variable.name])]);
      const variables = Object.fromEntries([...preset, ...own.filter(([, given]) => given !== undefined)]);
      return { text: value, ...(Object.keys(variables).length && { variables }) };
    };
  }
}

function parseOwn(variable, cell) {
  try {
    return parseCell(variable, cell);
  } catch {
    throw new Error(t("form.bad_value", { name: variable.name }));
  }
}

