/** The cases of a task: what it should answer to what; edited beside the prompt and run on the draft. */

import { explain } from "../api.js";
import { announce } from "../announce.js";
import { el, fill } from "../dom.js";
import { t } from "../i18n.js";
import { icon } from "../icons.js";
import { Editor } from "./editor.js";

export class Cases {
  /** `current` gives the draft at the moment; `onInput` is called with each change of the cases. */
  constructor(current, onInput) {
    this.current = current;
    this.editor = new Editor("cases.text", { onInput });
    this.button = el("button", { type: "button", class: "button button-primary", on: { click: () => this.run() } }, icon("play"), el("span", { i18n: "cases.run" }));
    this.place = el("div", { class: "trial" });
    this.node = el("div", { class: "cases" }, this.editor.node, el("div", { class: "row" }, this.button), this.place);
  }

  clear() {
    fill(this.place);
  }

  async run() {
    this.button.disabled = true;
    fill(this.place, el("p", { class: "muted row" }, el("i", { class: "spinner", "aria-hidden": "true" }), el("span", { i18n: "working" })));
    try {
      this.show(await this.current().runCases());
    } catch (error) {
      fill(this.place, el("p", { class: "notice notice-bad", role: "alert" }, icon("warning"), el("span", {}, explain(error))));
    } finally {
      this.button.disabled = false;
    }
  }

  show({ cases, num_passed: numPassed }) {
    const isAll = numPassed === cases.length;
    const words = ["cases.passed", { passed: numPassed, all: cases.length }];
    fill(
      this.place,
      el("p", { class: isAll ? "notice notice-good" : "notice notice-warn" }, icon(isAll ? "check" : "warning"), el("span", { i18n: words })),
      el("ul", { class: "case-list" }, cases.map((one) => this.item(one))),
    );
    announce(t(...words));
  }

  item({ description, vars, passed, failures, answer }) {
    return el(
      "li",
      { class: passed ? "case is-passed" : "case is-failed" },
      icon(passed ? "check" : "close"),
      el(
        "div",
        {},
        el("p", {}, el("span", { class: "visually-hidden", i18n: passed ? "cases.ok" : "cases.not_ok" }), " ", description && el("strong", {}, `${description}: `), el("span", { class: "text-box" }, String(vars.text ?? ""))),
        answer !== null && answer !== undefined && el("p", { class: "muted text-box" }, `→ ${typeof answer === "string" ? answer : JSON.stringify(answer)}`),
        failures.map((failure) => el("p", { class: "is-bad" }, failure)),
      ),
    );
  }
}
