/**
 * A conversation as the page holds it: turns, the reply that is running, and what may be done with them. Talks to the
 * API and tells one listener what changed; knows nothing of elements.
 */

import { ApiError, call, get } from "../api.js";
import { language } from "../i18n.js";
import { ofTab } from "../preferences.js";
import { replyEvents } from "./reply_stream.js";

const RUNNING = "running-reply";
/** A reply without an id cannot be stopped at the server; after so long we leave it. */
const MAX_STOP_WAIT_MS = 3_000;

/** What was said, its mood, and the reply as far as it is there. */
export class Turn {
  constructor({ text, reply = "", mood = null, number = null, answer_id: answerId = null, finish_reason: finishReason = null }) {
    Object.assign(this, { text, reply, mood, number, answerId, finishReason });
    this.status = "done"; // "waiting" | "streaming" | "done" | "failed"
    this.isLost = false; // the connection is away, we try again
    this.isStopping = false;
    this.error = null;
  }

  get isRunning() {
    return this.status === "waiting" || this.status === "streaming";
  }
}

export class Conversation {
  constructor({ id = null, title = "", turns = [] } = {}) {
    this.id = id;
    this.title = title;
    this.turns = turns;
    this.abort = null;
    this.onChange = () => {};
  }

  /** One that the server keeps. Raises: ApiError. */
  static async open(id) {
    const record = await get(`/v1/conversations/${encodeURIComponent(id)}`);
    return new Conversation({ id, title: record.title ?? "", turns: record.turns.map((turn) => new Turn(turn)) });
  }

  get running() {
    const last = this.turns.at(-1);
    return last?.isRunning ? last : null;
  }

  /** Say something; ends when the reply has ended. Never raises: what went wrong is the turn's. */
  async say(text) {
    const turn = this.begin(text);
    await this.run(turn, { request: { text, conversation: this.id, language: language() } });
  }

  /** The reply {answerId, text} of this conversation that was running when the page was left; null where none was. */
  findUnfinished() {
    const kept = JSON.parse(ofTab.get(RUNNING) ?? "null");
    const isOurs = kept?.conversation === this.id && !this.turns.some((turn) => turn.answerId === kept.answerId);
    return isOurs ? kept : null;
  }

  /** Go on with such a reply. */
  async resume({ answerId, text }) {
    await this.run(this.begin(text), { answerId });
  }

  begin(text) {
    const turn = new Turn({ text });
    turn.status = "waiting";
    this.turns.push(turn);
    this.onChange("added", turn);
    return turn;
  }

  async run(turn, { request = null, answerId = null }) {
    this.abort = new AbortController();
    const { signal } = this.abort;
    const onConnection = (state) => {
      turn.isLost = state === "lost";
      this.onChange("connection", turn);
    };
    try {
      for await (const { type, data } of replyEvents({ request, answerId, signal, onConnection })) this.take(turn, type, data);
    } catch (error) {
      await this.fail(turn, error);
    }
    turn.isLost = false;
    ofTab.remove(RUNNING);
    this.onChange("ended", turn);
  }

  take(turn, type, data) {
    if (type === "label") {
      const isNew = this.id === null && data.conversation;
      this.id ??= data.conversation ?? null;
      Object.assign(turn, { answerId: data.id, mood: data, status: "streaming" });
      ofTab.set(RUNNING, JSON.stringify({ answerId: data.id, conversation: this.id, text: turn.text }));
      if (isNew) this.onChange("named", turn);
      this.onChange("mood", turn);
      if (turn.isStopping) this.stopAtServer(turn);
    } else if (type === "token") {
      turn.reply += data.text;
      this.onChange("text", turn);
    } else if (type === "done") {
      Object.assign(turn, { status: "done", reply: data.text, finishReason: data.finish_reason, number: data.turn ?? null });
    } else if (type === "error") {
      Object.assign(turn, { status: "failed", error: new ApiError(data) });
    }
  }

  async fail(turn, error) {
    if (error.name === "AbortError") {
      Object.assign(turn, { status: "done", finishReason: "cancelled" });
      return;
    }
    Object.assign(turn, { status: "failed", error });
    const isUnknown = error.isOffline || error.status === 404 || error.status === 410; // the reply may have ended without us
    if (isUnknown) await this.recover(turn);
  }

  /** Look whether the server has kept a turn whose end we did not see; whether it has. */
  async recover(turn) {
    if (this.id === null) return false;
    try {
      const stored = (await Conversation.open(this.id)).turns.at(-1);
      const isIt = stored?.answerId && (turn.answerId ? stored.answerId === turn.answerId : !this.turns.some((other) => other.answerId === stored.answerId) && stored.text === turn.text);
      if (isIt) Object.assign(turn, stored, { error: null });
      return Boolean(isIt);
    } catch {
      return false; // the server is away: the turn's own error says so
    }
  }

  /** Stop the running reply; what was said is kept. */
  stop() {
    const turn = this.running;
    if (!turn) return;
    const isSecondTry = turn.isStopping;
    turn.isStopping = true;
    this.onChange("connection", turn);
    if (turn.answerId && !isSecondTry) this.stopAtServer(turn);
    const { abort } = this;
    if (isSecondTry) abort.abort();
    else setTimeout(() => turn.isRunning && abort.abort(), MAX_STOP_WAIT_MS);
  }

  async stopAtServer(turn) {
    try {
      await call("DELETE", `/v1/reply/${encodeURIComponent(turn.answerId)}`);
    } catch (error) {
      if (error.status !== 404) this.abort.abort(); // 404: it had ended by itself
    }
  }

  /** Answer the last turn again. Raises: ApiError, when the old answer cannot be taken back. */
  async retry() {
    const turn = this.turns.at(-1);
    if (turn.status === "failed" && (await this.recover(turn))) {
      this.onChange("ended", turn);
      return;
    }
    if (turn.number !== null) await call("DELETE", `/v1/conversations/${encodeURIComponent(this.id)}/turns/last`);
    this.turns.pop();
    this.onChange("removed", turn);
    await this.say(turn.text);
  }
}
