/** Where people write: Enter sends, Shift+Enter is a new line, an input method may use Enter for itself; drafts stay. */

import { el, fill } from "../dom.js";
import { sayAttribute } from "../i18n.js";
import { icon } from "../icons.js";
import { ofTab } from "../preferences.js";

export class Composer {
  constructor({ onSend, onStop }) {
    Object.assign(this, { onSend, onStop, isRunning: false, draftName: "draft.new" });
    this.input = el("textarea", {
      class: "composer-input", rows: 1, id: "composer", i18nLabel: "chat.message", i18nPlaceholder: "chat.placeholder",
      "aria-describedby": "composer-hint", autocomplete: "off",
      on: { keydown: (event) => this.onKey(event), input: () => this.keepDraft() },
    });
    this.button = el("button", { type: "submit", class: "send" });
    this.node = el(
      "form",
      { class: "composer", on: { submit: (event) => this.submit(event) } },
      el("div", { class: "composer-box" }, this.input, this.button),
      el("p", { class: "composer-hint", id: "composer-hint", i18n: "chat.keys" }),
    );
    this.setRunning(false);
  }

  onKey(event) {
    const isComposing = event.isComposing || event.keyCode === 229; // 229: Safari, at the end of a composition
    if (event.key !== "Enter" || event.shiftKey || event.altKey || isComposing) return;
    event.preventDefault();
    if (!this.isRunning) this.sendNow();
  }

  submit(event) {
    event.preventDefault();
    if (this.isRunning) this.onStop();
    else this.sendNow();
  }

  sendNow() {
    const text = this.input.value;
    if (!text.trim()) return;
    this.setText("");
    this.onSend(text);
  }

  /** Put a text there as if it had been typed. */
  setText(text) {
    this.input.value = text;
    this.keepDraft();
  }

  keepDraft() {
    if (this.input.value) ofTab.set(this.draftName, this.input.value);
    else ofTab.remove(this.draftName);
    this.fit();
    this.allow();
  }

  /** Nothing to send, nothing to press; a button that goes dead hands its focus on. */
  allow() {
    const hadFocus = document.activeElement === this.button;
    this.button.disabled = !this.isRunning && !this.input.value.trim();
    if (hadFocus && this.button.disabled) this.focus();
  }

  /** Whose draft it is: a conversation's id, or null. */
  open(id) {
    this.draftName = `draft.${id ?? "new"}`;
    this.input.value = ofTab.get(this.draftName) ?? "";
    this.fit();
    this.allow();
  }

  /** A new conversation has got its id: the draft goes with it. */
  rename(id) {
    ofTab.remove(this.draftName);
    this.draftName = `draft.${id}`;
    this.keepDraft();
  }

  fit() {
    this.input.style.height = "auto";
    if (!this.input.isConnected) return; // it has no size yet
    this.input.style.height = `${Math.min(this.input.scrollHeight, 200)}px`;
  }

  /** One button, two meanings. */
  setRunning(isRunning) {
    this.isRunning = isRunning;
    this.button.classList.toggle("is-stop", isRunning);
    fill(this.button, icon(isRunning ? "stop" : "send"));
    sayAttribute(this.button, "aria-label", isRunning ? "chat.stop" : "chat.send");
    sayAttribute(this.button, "title", isRunning ? "chat.stop" : "chat.send");
    this.allow();
  }

  focus() {
    this.input.focus({ preventScroll: true });
  }
}
