/**
 * A text with line numbers and errors at their lines. A plain textarea does the editing, so that keyboards, input methods
 * and screen readers work as everywhere; numbers and errors are drawn beside and behind it.
 */

import { el, fill, freshId } from "../dom.js";
import { number } from "../i18n.js";

const LINE_PX = 22;

export class Editor {
  /** `label`: key for the name of the text; `onInput` is called with each change. */
  constructor(label, { onInput = () => {} } = {}) {
    const errorsId = freshId("errors");
    this.problems = [];
    this.numLines = 0;
    this.area = el("textarea", { class: "editor-area", spellcheck: "false", autocapitalize: "off", autocomplete: "off", wrap: "off", i18nLabel: label, "aria-describedby": errorsId });
    this.gutter = el("div", { class: "gutter", "aria-hidden": "true" });
    this.marks = el("div", { class: "marks", "aria-hidden": "true" });
    this.errors = el("ul", { class: "editor-errors", id: errorsId, hidden: true });
    this.node = el("div", { class: "editor" }, el("div", { class: "editor-box" }, this.gutter, el("div", { class: "editor-body" }, this.marks, this.area)), this.errors);
    this.area.addEventListener("scroll", () => this.follow());
    this.area.addEventListener("input", () => {
      this.drawNumbers();
      this.drawMarks();
      onInput(this.area.value);
    });
  }

  get value() {
    return this.area.value;
  }

  set value(text) {
    this.area.value = text;
    this.area.scrollTop = 0;
    this.showErrors([]);
    this.drawNumbers();
  }

  set isReadOnly(isReadOnly) {
    this.area.readOnly = isReadOnly;
  }

  drawNumbers() {
    const numLines = this.area.value.split("\n").length;
    while (this.numLines < numLines) this.gutter.append(el("div", {}, number((this.numLines += 1))));
    while (this.numLines > numLines) (this.numLines -= 1), this.gutter.lastElementChild.remove();
    this.follow();
  }

  follow() {
    this.gutter.scrollTop = this.area.scrollTop;
    this.marks.style.transform = `translate(${-this.area.scrollLeft}px, ${-this.area.scrollTop}px)`;
  }

  /** Show errors [{line, message, hint}] at their lines and below the text; a line of 0 or null is the whole file. */
  showErrors(problems) {
    this.problems = problems;
    this.area.setAttribute("aria-invalid", String(problems.length > 0));
    this.errors.hidden = problems.length === 0;
    fill(this.errors, problems.map((problem) => this.item(problem)));
    this.drawMarks();
  }

  item({ line, message, hint }) {
    const words = [el("span", {}, message), hint && el("span", { class: "error-hint" }, hint)];
    if (!line) return el("li", {}, words);
    return el("li", {}, el("button", { type: "button", class: "error-line", i18n: ["prompts.line", { line }], on: { click: () => this.goTo(line) } }), words);
  }

  drawMarks() {
    const lines = this.area.value.split("\n");
    const wrong = new Set(this.problems.map(({ line }) => line).filter(Boolean));
    [...this.gutter.children].forEach((node, i) => node.classList.toggle("is-wrong", wrong.has(i + 1)));
    const marks = this.problems.filter(({ line }) => line >= 1 && line <= lines.length).map(({ line, message }) => {
      const mark = el("div", { class: "mark" }, el("span", { class: "mark-text" }, lines[line - 1] || " "), el("span", { class: "mark-message" }, message));
      mark.style.top = `${(line - 1) * LINE_PX}px`;
      return mark;
    });
    fill(this.marks, marks);
    this.follow();
  }

  /** Select a line and bring it into view. */
  goTo(line) {
    const lines = this.area.value.split("\n");
    const start = lines.slice(0, line - 1).reduce((sum, text) => sum + text.length + 1, 0);
    this.area.focus();
    this.area.setSelectionRange(start, start + (lines[line - 1]?.length ?? 0));
    this.area.scrollTop = Math.max(0, (line - 4) * LINE_PX);
    this.follow();
  }
}
