/** A batch on the page: progress, what went wrong at which line, a look at the answers, downloads. */

import { announce } from "../announce.js";
import { download, el, fill } from "../dom.js";
import { number, percent, seconds, t } from "../i18n.js";
import { icon } from "../icons.js";
import { bars, face, tone } from "../mood.js";
import { formatAnswers } from "./output_file.js";

const NUM_SHOWN_ERRORS = 200;
const NUM_SHOWN_ANSWERS = 50;
const TYPES = { csv: "text/csv;charset=utf-8", jsonl: "application/x-ndjson" };

/** An error of a row as words: one of ours by key, or the server's. */
export function describeError(error) {
  return Array.isArray(error) ? t(...error) : error;
}

function sayError(error) {
  return Array.isArray(error) ? el("span", { i18n: error }) : el("span", {}, error);
}

export class BatchView {
  constructor(batch, { task, file, onAgain }) {
    Object.assign(this, { batch, task, file });
    batch.onChange = () => this.update();
    this.bar = el("progress", { max: batch.entries.length, value: 0, i18nLabel: "batch.progress" });
    this.count = el("p", { class: "batch-count facts" });
    this.hint = el("p", { class: "notice notice-warn", hidden: true });
    this.cancel = el("button", { type: "button", class: "button", on: { click: () => batch.cancel() } }, icon("stop"), el("span", { i18n: "cancel" }));
    this.resume = el("button", { type: "button", class: "button button-primary", hidden: true, on: { click: () => this.start() } }, icon("play"), el("span", { i18n: "batch.resume" }));
    this.again = el("button", { type: "button", class: "button button-quiet", hidden: true, on: { click: onAgain } }, icon("retry"), el("span", { i18n: "batch.again" }));
    this.saves = ["csv", "jsonl"].map((format) => el("button", { type: "button", class: "button", hidden: true, on: { click: () => this.save(format) } }, icon("download"), el("span", { i18n: `batch.save_${format}` })));
    this.outcome = el("div", { class: "batch-outcome" });
    this.node = el(
      "section",
      { class: "card batch-run" },
      el("h3", { class: "title-2" }, el("bdi", {}, file.name)),
      this.bar, this.count, this.hint,
      el("div", { class: "row" }, this.cancel, this.resume, this.saves, this.again),
      this.outcome,
    );
  }

  /** Run, or go on; asks before the page is left meanwhile. */
  async start() {
    const stay = (event) => event.preventDefault();
    addEventListener("beforeunload", stay);
    announce(t("batch.started"));
    try {
      await this.batch.run();
    } finally {
      removeEventListener("beforeunload", stay);
    }
    announce([...this.count.children].map((part) => part.textContent).join(", "));
  }

  update() {
    const { batch } = this;
    const isRunning = batch.state === "running" || batch.state === "waiting";
    this.bar.value = batch.numDone;
    this.sayCount();
    this.sayHint();
    const hadFocus = document.activeElement === this.cancel;
    this.cancel.hidden = !isRunning;
    this.resume.hidden = batch.state !== "paused" && batch.state !== "cancelled";
    this.again.hidden = isRunning;
    for (const button of this.saves) button.hidden = isRunning || batch.numDone === 0;
    if (hadFocus && !isRunning) (this.resume.hidden ? this.saves[0] : this.resume).focus();
    if (!isRunning) this.showOutcome();
    else if (batch.numFailed !== this.numShown) fill(this.outcome, this.errors());
    this.numShown = batch.numFailed;
  }

  sayCount() {
    const { batch } = this;
    const speed = batch.seconds > 0 ? batch.numAsked / batch.seconds : 0;
    const left = speed > 0 ? (batch.entries.length - batch.numDone) / speed : 0;
    const state = { done: "batch.done", cancelled: "batch.cancelled", paused: "batch.paused" }[batch.state];
    const parts = [
      state && [state],
      ["batch.of", { done: batch.numDone, all: batch.entries.length }],
      batch.numFailed > 0 && ["batch.failed", { n: batch.numFailed }],
      speed > 0 && ["batch.speed", { speed: Number(speed.toPrecision(2)) }],
      !state && left > 1 && ["batch.left", { time: seconds(Math.round(left)) }],
    ];
    fill(this.count, parts.filter(Boolean).map((i18n) => el("span", { i18n })));
  }

  sayHint() {
    const { batch, hint } = this;
    hint.hidden = batch.state !== "waiting" && batch.state !== "paused";
    if (batch.state === "waiting") fill(hint, el("i", { class: "spinner", "aria-hidden": "true" }), el("span", { i18n: ["batch.waiting", { time: seconds(batch.waitS) }] }));
    else if (batch.state === "paused") fill(hint, icon("warning"), el("span", {}, batch.problem));
  }

  errors() {
    const { entries, answers, numFailed } = this.batch;
    if (!numFailed) return null;
    const shown = [];
    for (let i = 0; i < entries.length && shown.length < NUM_SHOWN_ERRORS; i += 1) {
      if (answers[i]?.error) shown.push(el("li", {}, el("strong", {}, `${this.file.name}:${entries[i].line}`), " ", sayError(answers[i].error)));
    }
    const more = numFailed - shown.length;
    return el(
      "section",
      { class: "batch-errors" },
      el("h4", { i18n: ["batch.errors", { n: numFailed }] }),
      el("ul", {}, shown, more > 0 && el("li", { class: "muted", i18n: ["batch.more_errors", { n: more }] })),
    );
  }

  showOutcome() {
    const answered = this.batch.answers.filter((answer) => answer?.result);
    fill(this.outcome, this.errors(), this.task.kind === "label" && answered.length > 0 && this.shares(answered), answered.length > 0 && this.table());
  }

  /** How often each label was given. */
  shares(answered) {
    const counts = Object.create(null);
    for (const { result } of answered) counts[result.label] = (counts[result.label] ?? 0) + 1;
    const sorted = Object.entries(counts).sort(([, a], [, b]) => b - a);
    const emojis = Object.fromEntries(this.task.labels.map(({ label, emoji }) => [label, emoji]));
    const names = Object.fromEntries(this.task.labels.map(({ label, name }) => [label, name]));
    const probs = Object.fromEntries(sorted.map(([label, n]) => [label, n / answered.length]));
    return el("section", { class: "batch-shares" }, el("h4", { i18n: "batch.shares" }), bars(probs, { emojis, names }));
  }

  table() {
    const { entries, answers } = this.batch;
    const rows = [];
    for (let i = 0; i < entries.length && rows.length < NUM_SHOWN_ANSWERS; i += 1) {
      const result = answers[i]?.result;
      if (result) rows.push(el("tr", {}, el("td", { class: "muted" }, number(entries[i].line)), el("td", {}, textOf(entries[i].cells).slice(0, 300)), el("td", {}, this.answer(result))));
    }
    const caption = el("caption", { class: "muted small", i18n: ["batch.first", { n: rows.length }] });
    return el(
      "div",
      { class: "table-wrap", tabindex: "0", role: "region", i18nLabel: "batch.answers" },
      el(
        "table",
        {},
        caption,
        el("thead", {}, el("tr", {}, el("th", { scope: "col", i18n: "batch.line" }), el("th", { scope: "col", i18n: "form.text" }), el("th", { scope: "col", i18n: "batch.answer" }))),
        el("tbody", {}, rows),
      ),
    );
  }

  answer({ kind, label, name, emoji, p_max: p, text, probs }) {
    if (kind !== "label") return text;
    return el("span", { class: `chip tone-${tone(label, name, Object.keys(probs).indexOf(label))}` }, face(emoji), el("bdi", {}, label), el("span", { class: "chip-p" }, percent(p)));
  }

  save(format) {
    const { entries, answers } = this.batch;
    const describe = (error, line) => `${this.file.name}:${line}: ${describeError(error)}`;
    const content = formatAnswers(format, { kind: this.task.kind, columns: this.file.columns, entries, answers, describeError: describe });
    const stem = this.file.name.replace(/\.[^.]*$/, "");
    download(`${stem}.${this.task.name}.${format}`, content, TYPES[format]);
  }
}

function textOf(cells) {
  return String(cells.text ?? Object.values(cells)[0] ?? "");
}
