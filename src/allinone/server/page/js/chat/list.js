/** The list of conversations: open, new, rename, export, delete. */

import { call, explain, get } from "../api.js";
import { note } from "../announce.js";
import { ask, askLine } from "../dialogs.js";
import { download, el, fill } from "../dom.js";
import { moment, onLanguage, t } from "../i18n.js";
import { icon } from "../icons.js";
import { menuButton } from "../menu.js";

const PAGE = 50;

export class ConversationList {
  /** `onDeleted` and `onRenamed` are called with an id, and the new title; `onLoaded` when the list was read. */
  constructor({ onLoaded, onDeleted, onRenamed }) {
    Object.assign(this, { onLoaded, onDeleted, onRenamed, records: [], current: null });
    this.items = el("ul", { class: "conversation-items" });
    this.more = el("button", { type: "button", class: "button button-quiet", i18n: "list.more", hidden: true, on: { click: () => this.load(true) } });
    this.empty = el("p", { class: "muted list-empty", i18n: "list.empty", hidden: true });
    this.node = el("div", { class: "conversation-list" }, this.items, this.empty, this.more);
    onLanguage(() => this.draw());
  }

  /** Read the list, or `isMore` of it. */
  async load(isMore = false) {
    const before = isMore ? this.records.at(-1)?.id : null;
    try {
      const { conversations } = await get(`/v1/conversations?limit=${PAGE}${before ? `&before=${encodeURIComponent(before)}` : ""}`);
      this.records = isMore ? [...this.records, ...conversations] : conversations;
      this.more.hidden = conversations.length < PAGE;
      this.draw();
      this.onLoaded();
    } catch (error) {
      note(explain(error), "bad");
    }
  }

  /** Mark the conversation that is open; null for a new one. */
  select(id) {
    this.current = id;
    for (const link of this.items.querySelectorAll("a")) this.mark(link);
  }

  mark(link) {
    const isCurrent = link.dataset.id === this.current;
    if (isCurrent) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }

  draw() {
    this.empty.hidden = this.records.length > 0;
    fill(this.items, this.records.map((record) => this.item(record)));
  }

  item(record) {
    const title = record.title || t("list.untitled");
    const link = el(
      "a",
      { href: `#/chat/${record.id}`, class: "conversation-link", data: { id: record.id } },
      el("span", { class: "conversation-title" }, title),
      el("span", { class: "conversation-when" }, `${moment(record.updated_at)} · ${t("list.turns", { n: record.num_turns })}`),
    );
    this.mark(link);
    const menu = menuButton(["list.menu", { title }], [
      { icon: "pencil", key: "list.rename", act: () => this.rename(record) },
      { icon: "download", key: "list.export", act: () => exportJson(`/v1/conversations/${record.id}`, "conversation.json") },
      { icon: "trash", key: "list.delete", act: () => this.remove(record), isDangerous: true },
    ]);
    return el("li", { class: "conversation-item" }, link, menu);
  }

  async rename(record) {
    const title = await askLine({ title: "list.rename", label: "list.title", value: record.title ?? "", confirm: "save" });
    if (title === null) return;
    await this.attempt(async () => {
      await call("PATCH", `/v1/conversations/${record.id}`, { body: { title } });
      record.title = title;
      this.draw();
      this.onRenamed(record.id, title);
    });
  }

  async remove(record) {
    const words = el("p", { i18n: ["list.really", { title: record.title || t("list.untitled") }] });
    if (!(await ask({ title: "list.delete", text: words, confirm: "list.delete", isDangerous: true }))) return;
    await this.attempt(async () => {
      await call("DELETE", `/v1/conversations/${record.id}`);
      this.records = this.records.filter((other) => other !== record);
      this.draw();
      note(t("list.deleted"));
      this.onDeleted(record.id);
    });
  }

  async attempt(action) {
    try {
      await action();
    } catch (error) {
      note(explain(error), "bad");
    }
  }
}

/** Save what a path answers as a file. */
export async function exportJson(path, name) {
  try {
    download(name, JSON.stringify(await get(path), null, 2), "application/json");
  } catch (error) {
    note(explain(error), "bad");
  }
}

/** The button that exports everything. */
export function exportAllButton() {
  return el(
    "button",
    { type: "button", class: "button button-quiet", on: { click: () => exportJson("/v1/conversations/export", "conversations.json") } },
    icon("download"),
    el("span", { i18n: "list.export_all" }),
  );
}
