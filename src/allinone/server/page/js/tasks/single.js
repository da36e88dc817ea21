/** One text: a form made from the task's declaration, and its answer. */

import { explain, post } from "../api.js";
import { announce } from "../announce.js";
import { el, fill } from "../dom.js";
import { percent, t } from "../i18n.js";
import { icon } from "../icons.js";
import { field, text } from "../dialogs.js";
import { labelChoice } from "./labels.js";
import { resultView } from "./result_view.js";
import { others, variableField } from "./variables.js";

export class SingleForm {
  constructor(task) {
    this.task = task;
    this.abort = null;
    this.fields = others(task).map((variable) => ({ name: variable.name, ...variableField(variable) }));
    this.labels = labelChoice(task);
    this.input = el("textarea", { class: "input task-text", rows: 4, required: true, i18nPlaceholder: "form.text_placeholder", on: { keydown: (event) => this.onKey(event) } });
    this.button = el("button", { type: "submit", class: "button button-primary" });
    this.place = el("div", { class: "result-place" });
    const limit = task.max_input_tokens;
    this.form = el(
      "form",
      { class: "card form", on: { submit: (event) => this.submit(event) } },
      field(text("form.text"), this.input, limit ? text("form.limit", { n: limit }) : null),
      this.fields.map(({ node }) => node),
      this.labels.node,
      el("div", { class: "row" }, this.button, el("span", { class: "muted small wide-only", i18n: "form.keys" })),
    );
    this.node = el("div", { class: "single" }, this.form, this.place);
    this.setRunning(false);
  }

  setRunning(isRunning) {
    this.isRunning = isRunning;
    this.button.classList.toggle("is-running", isRunning);
    fill(this.button, isRunning ? el("i", { class: "spinner", "aria-hidden": "true" }) : icon("play"), el("span", { i18n: isRunning ? "form.stop" : "form.run" }));
  }

  onKey(event) {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || event.isComposing) return;
    event.preventDefault();
    this.form.requestSubmit();
  }

  async submit(event) {
    event.preventDefault();
    if (this.isRunning) return this.abort.abort();
    this.abort = new AbortController();
    this.setRunning(true);
    try {
      const said = this.input.value;
      const variables = Object.fromEntries(this.fields.map(({ name, read }) => [name, read()]).filter(([, value]) => value !== undefined));
      const labels = this.labels.read();
      const body = { text: said, ...(Object.keys(variables).length && { variables }), ...(labels && { labels }) };
      const result = await post(`/v1/tasks/${encodeURIComponent(this.task.name)}`, body, { signal: this.abort.signal });
      fill(this.place, resultView(this.task, said, result));
      this.place.scrollIntoView({ block: "nearest" });
      announce(result.kind === "label" ? `${result.label} ${percent(result.p_max)}` : result.text);
    } catch (error) {
      if (error.name !== "AbortError") this.showError(error);
    } finally {
      this.setRunning(false);
    }
  }

  showError(error) {
    const words = error instanceof TypeError ? t("form.bad_value", { name: error.message }) : explain(error);
    fill(this.place, el("p", { class: "notice notice-bad", role: "alert" }, icon("warning"), el("span", {}, words)));
  }
}
