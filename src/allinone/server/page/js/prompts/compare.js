/** Old and new side by side on the same texts; where they differ is marked. */

import { explain } from "../api.js";
import { announce } from "../announce.js";
import { diff, renderDiff } from "../diff.js";
import { el, fill } from "../dom.js";
import { t } from "../i18n.js";
import { icon } from "../icons.js";
import { field, text } from "../dialogs.js";
import { ofTab } from "../preferences.js";
import { smallAnswer } from "./answer.js";

const MAX_TEXTS = 50;

export class Compare {
  /** `current` gives the draft at the moment. */
  constructor(current) {
    this.current = current;
    this.input = el("textarea", { class: "input", rows: 5, required: true, props: { value: ofTab.get("compare") ?? "" }, on: { input: () => ofTab.set("compare", this.input.value) } });
    this.button = el("button", { type: "submit", class: "button button-primary" }, icon("play"), el("span", { i18n: "compare.run" }));
    const fromCases = el("button", { type: "button", class: "button", i18n: "compare.from_cases", on: { click: () => this.takeCases() } });
    this.place = el("div", { class: "trial" });
    this.node = el(
      "div",
      { class: "compare" },
      el("form", { class: "form", on: { submit: (event) => this.run(event) } }, field(text("compare.texts"), this.input, text("compare.hint", { n: MAX_TEXTS })), el("div", { class: "row" }, this.button, fromCases)),
      this.place,
    );
  }

  clear() {
    fill(this.place);
  }

  async takeCases() {
    try {
      const { cases } = await this.current().runCases();
      this.input.value = cases.map(({ vars }) => String(vars.text ?? "").replaceAll("\n", " ")).filter(Boolean).join("\n");
      ofTab.set("compare", this.input.value);
    } catch (error) {
      this.fail(error);
    }
  }

  async run(event) {
    event.preventDefault();
    const texts = this.input.value.split("\n").map((line) => line.trim()).filter(Boolean).slice(0, MAX_TEXTS);
    if (!texts.length) return;
    this.button.disabled = true;
    fill(this.place, el("p", { class: "muted row" }, el("i", { class: "spinner", "aria-hidden": "true" }), el("span", { i18n: "working" })));
    try {
      const answer = await this.current().compare(texts);
      this.show(answer);
      announce(t("compare.changed", { n: answer.num_changed, all: answer.rows.length }));
    } catch (error) {
      this.fail(error);
    } finally {
      this.button.disabled = false;
    }
  }

  fail(error) {
    fill(this.place, el("p", { class: "notice notice-bad", role: "alert" }, icon("warning"), el("span", {}, explain(error))));
  }

  show({ rows, num_changed: n }) {
    fill(
      this.place,
      el("p", { class: n ? "notice notice-warn" : "notice notice-good" }, icon(n ? "pencil" : "check"), el("span", { i18n: ["compare.changed", { n, all: rows.length }] })),
      el(
        "div",
        { class: "table-wrap", tabindex: "0", role: "region", i18nLabel: "compare.name" },
        el(
          "table",
          { class: "compare-table" },
          el("thead", {}, el("tr", {}, ["form.text", "compare.old", "compare.new"].map((key) => el("th", { scope: "col", i18n: key })))),
          el("tbody", {}, rows.map((row) => this.row(row))),
        ),
      ),
    );
  }

  row({ text: said, old, new: fresh, is_changed: isChanged }) {
    const isText = isChanged && !old.error && !fresh.error && old.kind !== "label";
    return el(
      "tr",
      { class: isChanged ? "is-changed" : false },
      el("td", {}, said),
      el("td", {}, smallAnswer(old)),
      el("td", {}, isText ? renderDiff(diff(old.text, fresh.text)) : smallAnswer(fresh), isChanged && el("span", { class: "badge changed-badge", i18n: "compare.badge" })),
    );
  }
}
