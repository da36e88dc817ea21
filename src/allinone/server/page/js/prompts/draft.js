/**
 * A task's file as it is and as somebody would like it to be. The draft lives in this tab until it is saved or thrown
 * away; saving names the version it was made from, so that nobody's work is overwritten unseen. Draws nothing.
 */

import { call, get, post } from "../api.js";
import { ofTab } from "../preferences.js";

const PREFIX = "draft.prompt.";

export class Draft {
  constructor(stored) {
    this.stored = stored; // as GET /v1/prompts/{name}; version null: there is no such file yet
    const kept = JSON.parse(ofTab.get(PREFIX + stored.name) ?? "null");
    this.text = kept?.text ?? stored.text;
    this.cases = kept?.cases ?? this.storedCases;
    this.base = kept ? kept.base : stored.version; // the version that the draft was made from
  }

  /** Raises: ApiError. */
  static async open(name) {
    const kept = JSON.parse(ofTab.get(PREFIX + name) ?? "null");
    if (kept?.isNew) return new Draft(unwritten(name));
    try {
      return new Draft(await get(`/v1/prompts/${encodeURIComponent(name)}`));
    } catch (error) {
      if (error.status === 404 && kept) return new Draft(unwritten(name)); // the file is gone, the draft is not
      throw error;
    }
  }

  /** A draft of a new task that begins as a copy of this one. */
  copyAs(name) {
    const copy = new Draft(unwritten(name));
    copy.edit({ text: this.text, cases: this.cases });
    return copy;
  }

  /** Names of all tasks with a draft in this tab. */
  static names() {
    return ofTab.names(PREFIX);
  }

  get name() {
    return this.stored.name;
  }

  get isNew() {
    return this.stored.version === null;
  }

  get storedCases() {
    return this.stored.cases_text ?? "";
  }

  get isChanged() {
    return this.isNew || this.text !== this.stored.text || this.cases !== this.storedCases;
  }

  /** Somebody saved the file after this draft was begun. */
  get isBehind() {
    return !this.isNew && this.base !== this.stored.version;
  }

  edit({ text = this.text, cases = this.cases }) {
    Object.assign(this, { text, cases });
    if (this.isChanged) ofTab.set(PREFIX + this.name, JSON.stringify({ text, cases, base: this.base, isNew: this.isNew }));
    else ofTab.remove(PREFIX + this.name);
  }

  /** Forget the draft. */
  discard() {
    Object.assign(this, { text: this.stored.text, cases: this.storedCases, base: this.stored.version });
    ofTab.remove(PREFIX + this.name);
  }

  /** The draft stays as it is, but counts as made from what is stored now: saving replaces that. */
  rebase() {
    this.base = this.stored.version;
    this.edit({});
  }

  /** What is wrong with the files: [] or errors [{file, line, message, hint}]. Raises: ApiError. */
  async check(signal) {
    const answer = await post("/v1/prompts/check", { name: this.name, text: this.text, ...this.casesBody() }, { signal });
    return answer.ok ? [] : answer.errors;
  }

  /** Old and new on the same texts. Raises: ApiError. */
  compare(texts, signal) {
    return post("/v1/prompts/compare", { name: this.name, text: this.text, texts }, { signal });
  }

  /** The cases on the draft. Raises: ApiError. */
  runCases(signal) {
    return post(`/v1/prompts/${encodeURIComponent(this.name)}/cases`, { text: this.text, ...this.casesBody() }, { signal });
  }

  casesBody() {
    return this.cases.trim() ? { cases_text: this.cases } : {};
  }

  /** Write the file; it is served at once. Raises: ApiError; 409 when somebody else was first. */
  async save() {
    const body = { text: this.text, expected_version: this.base, ...(this.cases !== this.storedCases && { cases_text: this.cases }) };
    await call("PUT", `/v1/prompts/${encodeURIComponent(this.name)}`, { body });
    await this.refresh();
    this.discard();
  }

  /** Read what is stored now; the draft stays. */
  async refresh() {
    this.stored = await get(`/v1/prompts/${encodeURIComponent(this.name)}`);
  }
}

function unwritten(name) {
  return { name, text: "", version: null, layer: null, is_editable: true, cases_text: "" };
}
