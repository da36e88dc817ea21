/** The chat: list of conversations, turns, composer. Draws what conversation.js holds. */

import { explain, onKey } from "../api.js";
import { announce, note } from "../announce.js";
import { el, fill } from "../dom.js";
import { percent, say, sayPlain, t } from "../i18n.js";
import { icon } from "../icons.js";
import { Composer } from "./composer.js";
import { Conversation } from "./conversation.js";
import { ConversationList, exportAllButton } from "./list.js";
import { MoodChart } from "./mood_chart.js";
import { TurnView } from "./turn_view.js";

const NEAR_END_PX = 80;

export class ChatView {
  constructor() {
    this.kept = new Map(); // id -> conversations with a running reply: they go on while another one is open
    this.list = new ConversationList({ onLoaded: () => this.takeTitle(), onDeleted: (id) => this.onDeleted(id), onRenamed: (id, title) => this.onRenamed(id, title) });
    this.composer = new Composer({ onSend: (text) => this.send(text), onStop: () => this.conversation.stop() });
    this.chart = new MoodChart();
    this.title = el("h2", { class: "chat-title" });
    this.turns = el("div", { class: "turns" });
    this.welcome = this.makeWelcome();
    this.log = el("div", { class: "log", role: "log", "aria-live": "off", tabindex: "0", i18nLabel: "chat.log", on: { scroll: () => this.onScroll() } }, this.welcome, this.turns);
    this.toEnd = el("button", { type: "button", class: "to-end", hidden: true, i18nLabel: "chat.to_end", i18nTitle: "chat.to_end", on: { click: () => this.scrollToEnd() } }, icon("send", "is-down"));
    this.node = el("div", { class: "chat" }, this.makeSidebar(), el("section", { class: "chat-main" }, this.makeHead(), this.log, this.toEnd, this.composer.node));
    this.show(new Conversation());
    this.list.load();
    onKey(() => this.list.load());
  }

  makeSidebar() {
    const fresh = el("a", { href: "#/chat", class: "button button-primary new-chat", on: { click: () => this.open("") } }, icon("plus"), el("span", { i18n: "list.new" }));
    this.sidebar = el("aside", { class: "sidebar", id: "conversations", i18nLabel: "list.name" }, fresh, this.list.node, exportAllButton());
    this.sidebar.addEventListener("keydown", (event) => event.key === "Escape" && this.closeSidebar());
    this.sidebar.addEventListener("click", (event) => event.target.closest("a") && this.closeSidebar());
    return [this.sidebar, el("div", { class: "sidebar-shade", on: { click: () => this.closeSidebar() } })];
  }

  makeHead() {
    this.opener = el("button", { type: "button", class: "tool sidebar-opener", i18nLabel: "list.name", i18nTitle: "list.name", "aria-expanded": "false", "aria-controls": "conversations", on: { click: () => this.toggleSidebar() } }, icon("menu"));
    return el("div", { class: "chat-head" }, this.opener, this.title, this.chart.node);
  }

  makeWelcome() {
    const ideas = ["chat.idea_1", "chat.idea_2", "chat.idea_3"].map((key) => {
      const button = el("button", { type: "button", class: "idea", i18n: key });
      button.addEventListener("click", () => (this.composer.setText(button.textContent), this.composer.focus()));
      return button;
    });
    return el(
      "div",
      { class: "welcome" },
      el("img", { src: new URL("../../logo.svg", import.meta.url), alt: "", width: 56, height: 56 }),
      el("p", { class: "welcome-title", i18n: "chat.welcome" }),
      el("p", { class: "muted", i18n: "chat.welcome_more" }),
      el("div", { class: "ideas" }, ideas),
    );
  }

  toggleSidebar() {
    const isOpen = this.node.classList.toggle("has-sidebar");
    this.opener.setAttribute("aria-expanded", String(isOpen));
    if (isOpen) this.sidebar.querySelector("a").focus();
  }

  closeSidebar() {
    if (!this.node.classList.contains("has-sidebar")) return;
    this.toggleSidebar();
    this.opener.focus();
  }

  /** Show what the address names: nothing or "" is a new conversation. */
  async open(id) {
    if (id ? id === this.conversation.id : this.conversation.id === null && this.conversation.turns.length === 0) return;
    if (!id) return this.show(new Conversation());
    if (this.kept.has(id)) return this.show(this.kept.get(id));
    this.opening = id;
    try {
      const conversation = await Conversation.open(id);
      if (this.opening !== id) return;
      this.show(conversation);
      const unfinished = conversation.findUnfinished();
      if (unfinished) await this.follow(conversation.resume(unfinished));
    } catch (error) {
      note(explain(error), "bad");
      location.hash = "#/chat";
    }
  }

  show(conversation) {
    this.opening = null;
    if (this.conversation) this.conversation.onChange = (what, turn) => this.onElsewhere(what, turn);
    this.conversation = conversation;
    conversation.onChange = (what, turn) => this.onChange(what, turn);
    this.views = new Map();
    fill(this.turns);
    for (const turn of conversation.turns) this.addTurn(turn);
    this.showTitle();
    this.onTurns();
    this.list.select(conversation.id);
    this.composer.open(conversation.id);
    this.composer.setRunning(Boolean(conversation.running));
    this.scrollToEnd();
    if (matchMedia("(min-width: 800px)").matches) this.composer.focus();
  }

  showTitle() {
    if (this.conversation.title) sayPlain(this.title, this.conversation.title);
    else say(this.title, this.conversation.id ? "list.untitled" : "list.new");
  }

  addTurn(turn) {
    const view = new TurnView(turn, { onRetry: () => this.retry() });
    this.views.set(turn, view);
    this.turns.append(view.node);
  }

  onTurns() {
    const { turns } = this.conversation;
    this.welcome.hidden = turns.length > 0;
    for (const [turn, view] of this.views) view.setLast(turn === turns.at(-1));
    this.chart.draw(turns.map((turn) => turn.mood).filter(Boolean));
  }

  async send(text) {
    if (this.conversation.running) return;
    this.composer.focus();
    await this.follow(this.conversation.say(text));
  }

  async retry() {
    if (this.conversation.running) return;
    this.composer.focus();
    try {
      await this.follow(this.conversation.retry());
    } catch (error) {
      note(explain(error), "bad");
    }
  }

  /** Keep a conversation alive for as long as something runs in it. */
  async follow(running) {
    const { conversation } = this;
    if (conversation.id) this.kept.set(conversation.id, conversation);
    try {
      await running;
    } finally {
      this.kept.delete(conversation.id);
      if (conversation.turns.length) this.list.load();
    }
  }

  onChange(what, turn) {
    const isAtEnd = this.isAtEnd();
    if (what === "added") this.addTurn(turn);
    const view = this.views.get(turn);
    if (what === "removed") {
      view.node.remove();
      this.views.delete(turn);
    } else if (what === "text") {
      view.showTextSoon(() => isAtEnd && this.scrollToEnd());
      return;
    }
    if (what === "named") this.onNamed();
    if (what === "mood") view.showMood();
    if (what === "ended") view.showText();
    view.showState();
    this.onTurns();
    this.composer.setRunning(Boolean(this.conversation.running));
    this.speak(what, turn);
    if (isAtEnd || what === "added") this.scrollToEnd();
  }

  /** Screen readers hear the mood, then the reply as a whole: never token by token. */
  speak(what, turn) {
    if (what === "mood") announce(`${t("chat.mood")} ${turn.mood.label} ${percent(turn.mood.p_max ?? 1)}`);
    if (what === "connection" && turn.isLost) announce(t("chat.lost"));
    if (what === "ended") announce(turn.error ? explain(turn.error) : turn.reply || t("chat.stopped"));
  }

  onElsewhere(what, turn) {
    if (what === "ended" && turn.error) note(explain(turn.error), "bad");
  }

  onNamed() {
    const { conversation } = this;
    this.kept.set(conversation.id, conversation);
    history.replaceState(null, "", `#/chat/${conversation.id}`);
    this.composer.rename(conversation.id);
    this.list.select(conversation.id);
    this.list.load();
  }

  onDeleted(id) {
    if (id !== this.conversation.id) return;
    this.conversation.stop();
    location.hash = "#/chat";
  }

  onRenamed(id, title) {
    if (id !== this.conversation.id) return;
    this.conversation.title = title;
    this.showTitle();
  }

  /** The server gives a title to what has none. */
  takeTitle() {
    const record = this.list.records.find(({ id }) => id === this.conversation.id);
    if (record?.title) this.onRenamed(record.id, record.title);
  }

  /** Where the keyboard begins. */
  findStart() {
    return this.composer.input;
  }

  isAtEnd() {
    return this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < NEAR_END_PX;
  }

  onScroll() {
    this.toEnd.hidden = this.isAtEnd();
  }

  scrollToEnd() {
    this.log.scrollTop = this.log.scrollHeight;
  }
}
