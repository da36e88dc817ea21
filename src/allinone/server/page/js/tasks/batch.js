/**
 * One task over all rows of a file: in requests of 32 inputs, answers in the order of the rows. Knows the API and how to
 * be patient with it; draws nothing.
 */

import { explain, post, sleep } from "../api.js";

export const CHUNK = 32;
const MAX_WAIT_S = 60;
const MAX_OFFLINE_TRIES = 5;
/** The whole request was refused: halving it finds the input that it is about. */
const ABOUT_THE_INPUTS = new Set([400, 413, 422]);

export class Batch {
  /**
   * `entries`: {line, cells} or {line, error}, as input_file.js gives them. `toInput` makes {text, variables} of the
   * cells, or raises an Error with a message for people. `labels`: as in the API.
   */
  constructor({ task, entries, toInput, labels }) {
    Object.assign(this, { task, entries, toInput, labels });
    this.answers = entries.map(() => null); // {result} | {error: text or [key, values]}
    this.state = "ready"; // "running" | "waiting" | "paused" | "cancelled" | "done"
    this.waitS = 0;
    this.problem = null;
    this.numDone = 0;
    this.numFailed = 0;
    this.first = 0; // every row before it has its answer
    this.seconds = 0;
    this.numAsked = 0; // over the network, for the speed
    this.onChange = () => {};
    entries.forEach(({ error }, i) => error && this.settle(i, { error }));
  }

  settle(i, answer) {
    this.answers[i] = answer;
    this.numDone += 1;
    this.numFailed += answer.error ? 1 : 0;
  }

  /** Begin, or go on after a pause. Ends when there is nothing more to do or when it is stopped. */
  async run() {
    this.abort = new AbortController();
    this.problem = null;
    const startedAt = performance.now();
    const before = this.seconds;
    const tick = () => (this.seconds = before + (performance.now() - startedAt) / 1000);
    this.set("running");
    try {
      while (this.numDone < this.entries.length) {
        await this.ask(this.take());
        tick();
        this.onChange();
      }
      this.set("done");
    } catch (error) {
      if (error.name === "AbortError") this.set("cancelled");
      else {
        this.problem = explain(error);
        this.set("paused");
      }
    }
  }

  cancel() {
    this.abort.abort();
  }

  set(state) {
    this.state = state;
    this.onChange();
  }

  /** The next rows to ask for, with their inputs; rows that give no input are answered with their error. */
  take() {
    const rows = [];
    while (this.answers[this.first]) this.first += 1;
    for (let i = this.first; i < this.entries.length && rows.length < CHUNK; i += 1) {
      if (this.answers[i]) continue;
      try {
        rows.push({ i, input: this.toInput(this.entries[i].cells) });
      } catch (error) {
        this.settle(i, { error: error.message });
      }
    }
    return rows;
  }

  async ask(rows) {
    if (!rows.length) return;
    try {
      const { results } = await this.send(rows.map(({ input }) => input));
      rows.forEach(({ i }, n) => this.settle(i, results[n].error ? { error: explainItem(results[n].error) } : { result: results[n] }));
      this.numAsked += rows.length;
    } catch (error) {
      if (!ABOUT_THE_INPUTS.has(error.status)) throw error;
      if (rows.length === 1) {
        this.settle(rows[0].i, { error: explain(error) });
        return;
      }
      const half = rows.length >> 1;
      await this.ask(rows.slice(0, half));
      await this.ask(rows.slice(half));
    }
  }

  /** One request, as often as it takes: the server says when to come back. */
  async send(inputs) {
    const { signal } = this.abort;
    const body = { inputs, ...(this.labels && { labels: this.labels }) };
    for (let numOffline = 0; ; ) {
      try {
        return await post(`/v1/tasks/${encodeURIComponent(this.task.name)}`, body, { signal });
      } catch (error) {
        const isBusy = error.status === 429 || error.status === 503;
        numOffline = error.isOffline ? numOffline + 1 : 0;
        if (!isBusy && (!error.isOffline || numOffline > MAX_OFFLINE_TRIES)) throw error;
        this.waitS = isBusy ? Math.min(Math.max(error.retryAfterS ?? 1, 0.2), MAX_WAIT_S) : 2 ** (numOffline - 1);
        this.set("waiting");
        await sleep(1000 * this.waitS, signal);
        this.set("running");
      }
    }
  }
}

function explainItem({ detail, title, hint }) {
  return [detail || title, hint].filter(Boolean).join(" ");
}
