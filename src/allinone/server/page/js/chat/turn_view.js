/** One turn on the page: what was said, the mood, the reply as it grows, and what can be done with it. */

import { explain } from "../api.js";
import { copyButton } from "../copy.js";
import { el, fill } from "../dom.js";
import { say } from "../i18n.js";
import { feedbackButtons } from "../feedback.js";
import { icon } from "../icons.js";
import { moodChip } from "../mood.js";

export class TurnView {
  /** `onRetry` is called when the user wants another answer. */
  constructor(turn, { onRetry }) {
    this.turn = turn;
    this.onRetry = onRetry;
    this.isLast = true;
    this.drawn = "";
    this.frame = null;
    this.replyText = document.createTextNode("");
    this.moodPlace = el("div", { class: "mood-place" });
    this.dots = el("div", { class: "dots", "aria-hidden": "true" }, el("i"), el("i"), el("i"));
    this.reply = el("div", { class: "reply" }, this.replyText);
    this.hint = el("p", { class: "turn-hint", hidden: true });
    this.tools = el("div", { class: "tools" });
    this.answer = el(
      "div",
      { class: "answer" },
      el("h4", { class: "visually-hidden", i18n: "chat.reply" }),
      this.moodPlace, this.dots, this.reply, this.hint, this.tools,
    );
    this.node = el(
      "article",
      { class: "turn" },
      el("div", { class: "said" }, el("h4", { class: "visually-hidden", i18n: "chat.said" }), el("p", {}, turn.text)),
      this.answer,
    );
    this.showMood();
    this.showText();
    this.showState();
  }

  showMood() {
    if (this.turn.mood) fill(this.moodPlace, moodChip(this.turn.mood));
  }

  /** Tokens come faster than frames: draw once a frame. */
  showTextSoon(afterwards) {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.showText();
      afterwards();
    });
  }

  showText() {
    const { reply } = this.turn;
    if (reply === this.drawn) return;
    if (reply.startsWith(this.drawn)) this.replyText.appendData(reply.slice(this.drawn.length));
    else this.replyText.data = reply;
    this.drawn = reply;
    this.dots.hidden = true;
  }

  showState() {
    const { turn } = this;
    this.node.classList.toggle("is-running", turn.isRunning);
    this.answer.setAttribute("aria-busy", String(turn.isRunning));
    this.dots.hidden = !turn.isRunning || turn.reply !== "";
    this.showHint();
    this.showTools();
  }

  showHint() {
    const { turn, hint } = this;
    hint.className = "turn-hint";
    const key = turn.isStopping && turn.isRunning ? "chat.stopping" : turn.isLost ? "chat.lost" : HINTS[turn.finishReason];
    hint.hidden = !key && !turn.error;
    if (hint.hidden) return;
    if (turn.error) {
      hint.classList.add("is-bad");
      fill(hint, icon("warning"), el("span", {}, explain(turn.error)));
    } else {
      hint.classList.toggle("is-lost", turn.isLost);
      const words = el("span");
      say(words, key);
      fill(hint, turn.isLost && el("i", { class: "spinner", "aria-hidden": "true" }), words);
    }
  }

  showTools() {
    const { turn } = this;
    const focused = this.tools.contains(document.activeElement);
    if (turn.isRunning) return void fill(this.tools);
    if (this.tools.dataset.for !== `${turn.answerId} ${turn.status}`) {
      this.tools.dataset.for = `${turn.answerId} ${turn.status}`;
      this.retry = el("button", { type: "button", class: turn.error ? "button button-small" : "tool", i18nLabel: "chat.retry", i18nTitle: "chat.retry", on: { click: () => this.tryAgain() } }, icon("retry"), turn.error && el("span", { i18n: "chat.retry" }));
      const isWhole = turn.reply !== "";
      fill(this.tools, isWhole && copyButton(() => turn.reply), this.retry, turn.status === "done" && turn.answerId && isWhole && feedbackButtons(turn.answerId));
      if (focused) this.retry.focus();
    }
    this.retry.hidden = !this.isLast;
  }

  /** One press, one retry. */
  async tryAgain() {
    this.retry.disabled = true;
    await this.onRetry();
    this.retry.disabled = false;
  }

  /** Only the last turn can be answered again. */
  setLast(isLast) {
    this.isLast = isLast;
    if (this.retry) this.retry.hidden = !isLast;
  }
}

const HINTS = { cancelled: "chat.stopped", length: "chat.cut", deadline: "chat.deadline" };
