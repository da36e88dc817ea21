/** The status: what runs, how much, how fast; asked every two seconds while somebody looks. */

import { explain, get } from "../api.js";
import { el, fill } from "../dom.js";
import { bytes, number, onLanguage, percent, seconds } from "../i18n.js";
import { icon } from "../icons.js";
import { Plot } from "./plot.js";

const POLL_MS = 2_000;

export class StatusView {
  constructor() {
    this.isShown = true;
    this.before = null;
    this.facts = el("dl", { class: "status-facts" });
    this.problem = el("p", { class: "notice notice-bad", role: "alert", hidden: true });
    this.plots = makePlots();
    this.node = el(
      "div",
      { class: "page" },
      el("div", { class: "page-inner" }, el("h2", { class: "title-1", i18n: "view.status" }), this.problem, el("div", { class: "card" }, this.facts), el("div", { class: "plots" }, Object.values(this.plots).map(({ node }) => node))),
    );
    document.addEventListener("visibilitychange", () => this.restart());
    onLanguage(() => this.last && this.show(this.last));
    this.restart();
  }

  open() {}

  /** The tab was chosen or left. */
  setShown(isShown) {
    if (isShown === this.isShown) return;
    this.isShown = isShown;
    this.restart();
  }

  restart() {
    clearTimeout(this.timer);
    if (this.isShown && !document.hidden) this.poll();
  }

  async poll() {
    clearTimeout(this.timer);
    const round = (this.round = {});
    try {
      const status = await get("/v1/status");
      if (round !== this.round) return; // a newer round has begun
      this.problem.hidden = true;
      this.add(status);
    } catch (error) {
      this.problem.hidden = false;
      fill(this.problem, icon("warning"), el("span", {}, explain(error)));
      this.before = null;
    }
    if (round === this.round && this.isShown && !document.hidden) this.timer = setTimeout(() => this.poll(), POLL_MS);
  }

  add(status) {
    const now = new Date();
    const { engine, memory, queue, latency, results_cache: results } = status;
    const { tokens, answers, queue: waiting, streams, memory: held, kv, cache, label, reply } = this.plots;
    const seconds = this.before ? (now - this.before.now) / 1000 : null;
    const rate = (name) => (seconds ? Math.max(0, engine[name] - this.before.engine[name]) / seconds : null);
    tokens.add(now, [rate("num_prefilled_tokens"), rate("num_decoded_tokens")]);
    answers.add(now, [rate("num_ended"), rate("num_failed")]);
    streams.add(now, [status.num_streams, engine.num_resident_sessions]);
    waiting.add(now, [queue.num_waiting, queue.num_running]);
    held.add(now, [memory.rss_bytes]);
    kv.limit = memory.max_kv_tokens;
    kv.add(now, [memory.kv_tokens]);
    const lookups = engine.prefix_hits + engine.prefix_misses;
    cache.add(now, [results.hits + results.misses ? results.hit_rate : null, lookups ? engine.prefix_hits / lookups : null]);
    label.add(now, [latency.label_p50_s, latency.label_p95_s]);
    reply.add(now, [latency.ttft_p50_s, latency.ttft_p95_s]);
    this.before = { now, engine };
    this.last = status;
    this.show(status);
  }

  show(status) {
    const { model, engine } = status;
    const entries = [
      ["status.model", model.name],
      ["status.backend", `${model.backend} · ${model.quantization}`],
      ["status.context", number(model.max_context_tokens)],
      ["status.version", status.version],
      ["status.uptime", duration(status.uptime_s)],
      ["status.threads", number(model.num_threads)],
      status.num_workers > 1 && ["status.worker", `${number(status.worker)} / ${number(status.num_workers)}`],
      ["status.requests", number(engine.num_ended)],
      ["status.failed", number(engine.num_failed)],
    ].filter(Boolean);
    fill(this.facts, entries.map(([key, value]) => el("div", {}, el("dt", { class: "muted small", i18n: key }), el("dd", {}, value))));
    for (const plot of Object.values(this.plots)) plot.draw();
  }
}

function makePlots() {
  const perSecond = (value) => `${number(value, value < 10 ? 1 : 0)}/s`;
  const count = (value) => number(value, value < 1 ? 1 : 0);
  return {
    tokens: new Plot({ title: "status.tokens", series: [{ key: "status.prefill", tone: "violet" }, { key: "status.decode", tone: "green" }], show: perSecond }),
    answers: new Plot({ title: "status.answers", series: [{ key: "status.ended", tone: "green" }, { key: "status.failing", tone: "red" }], show: perSecond }),
    queue: new Plot({ title: "status.queue", series: [{ key: "status.waiting", tone: "amber" }, { key: "status.running", tone: "blue" }], show: count }),
    label: new Plot({ title: "status.label_latency", series: [{ key: "status.p50", tone: "green" }, { key: "status.p95", tone: "amber" }], show: seconds }),
    reply: new Plot({ title: "status.ttft", series: [{ key: "status.p50", tone: "green" }, { key: "status.p95", tone: "amber" }], show: seconds }),
    memory: new Plot({ title: "status.memory", series: [{ key: "status.rss", tone: "blue" }], show: bytes }),
    streams: new Plot({ title: "status.replies", series: [{ key: "status.streaming", tone: "blue" }, { key: "status.resident", tone: "violet" }], show: count }),
    kv: new Plot({ title: "status.kv", series: [{ key: "status.kv_tokens", tone: "violet" }], show: count }),
    cache: new Plot({ title: "status.cache", series: [{ key: "status.results", tone: "green" }, { key: "status.prefixes", tone: "blue" }], show: percent, max: 1 }),
  };
}

/** Seconds as "3 h 12 min". */
function duration(value) {
  const minutes = Math.floor(value / 60);
  if (minutes < 1) return `${Math.floor(value)} s`;
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${number(Math.floor(hours / 24))} d`;
}
