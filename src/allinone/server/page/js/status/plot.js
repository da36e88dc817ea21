/** A live plot: lines over the last minutes, the newest value in words, and all values as a table for who wants it. */

import { el, fill, freshId, svg } from "../dom.js";
import { t } from "../i18n.js";

const WIDTH = 320;
const HEIGHT = 96;
const TOP = 6;
/** Points kept: two minutes of one every two seconds. */
export const NUM_POINTS = 60;
const NUM_TABLE_ROWS = 10;

export class Plot {
  /**
   * `series`: [{key, tone}]; `show` makes words of a value; `max` fixes the top of the scale; `limit` is said beside the
   * newest value.
   */
  constructor({ title, series, show, max = null, limit = null }) {
    Object.assign(this, { title, series, show, max, limit, points: [] });
    const titleId = freshId("plot");
    this.values = el("p", { class: "plot-values" });
    this.picture = svg("svg", { class: "plot-picture", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
    this.top = el("span", { class: "plot-top muted", "aria-hidden": "true" });
    this.table = el("table");
    this.node = el(
      "figure",
      { class: "card plot", "aria-labelledby": titleId },
      el("figcaption", { id: titleId, class: "title-2", i18n: title }),
      this.values,
      el("div", { class: "plot-box" }, this.picture, this.top),
      el("details", {}, el("summary", { class: "small", i18n: "status.as_table" }), el("div", { class: "table-wrap" }, this.table)),
    );
  }

  /** One moment more: a value, or null, for each series. */
  add(time, values) {
    this.points.push({ time, values });
    if (this.points.length > NUM_POINTS) this.points.shift();
    this.draw();
  }

  draw() {
    const all = this.points.flatMap(({ values }) => values).filter((value) => value !== null);
    const top = this.max ?? niceTop(Math.max(0, ...all));
    const y = (value) => HEIGHT - 1.5 - ((HEIGHT - TOP - 1.5) * value) / top;
    const x = (i) => WIDTH - ((this.points.length - 1 - i) * WIDTH) / (NUM_POINTS - 1);
    const lines = this.series.map(({ tone }, n) => {
      const places = this.points.map(({ values }, i) => (values[n] === null ? null : `${x(i).toFixed(1)} ${y(values[n]).toFixed(1)}`));
      return svg("path", { class: `plot-line tone-${tone}`, d: pathOf(places), "vector-effect": "non-scaling-stroke" });
    });
    const grid = [0.5, 1].map((part) => svg("line", { class: "plot-grid", x1: 0, x2: WIDTH, y1: y(top * part), y2: y(top * part), "vector-effect": "non-scaling-stroke" }));
    fill(this.picture, grid, lines);
    this.top.textContent = all.length ? this.show(top) : "";
    this.describe();
  }

  describe() {
    const newest = this.points.at(-1)?.values ?? this.series.map(() => null);
    const words = (value) => (value === null ? "–" : this.show(value));
    fill(this.values, this.series.map(({ key, tone }, n) => el("span", { class: `plot-value tone-${tone}` }, el("i", { "aria-hidden": "true" }), el("span", { class: "muted" }, t(key)), " ", el("strong", {}, words(newest[n])), this.limit !== null && el("span", { class: "muted" }, ` / ${words(this.limit)}`))));
    const ranges = this.series.map(({ key }, n) => {
      const known = this.points.map(({ values }) => values[n]).filter((value) => value !== null);
      return known.length ? t("status.range", { name: t(key), now: words(known.at(-1)), low: words(Math.min(...known)), high: words(Math.max(...known)) }) : `${t(key)}: –`;
    });
    this.picture.setAttribute("aria-label", `${t(this.title)}. ${ranges.join("; ")}`);
    if (this.node.querySelector("details").open || !this.table.childElementCount) this.drawTable(words);
  }

  drawTable(words) {
    const rows = this.points.slice(-NUM_TABLE_ROWS).reverse();
    fill(
      this.table,
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, t("status.time")), this.series.map(({ key }) => el("th", { scope: "col" }, t(key))))),
      el("tbody", {}, rows.map(({ time, values }) => el("tr", {}, el("th", { scope: "row" }, time.toLocaleTimeString()), values.map((value) => el("td", {}, words(value)))))),
    );
  }
}

/** A path through places; a missing one breaks the line. */
function pathOf(places) {
  return places.map((place, i) => (place === null ? "" : `${i === 0 || places[i - 1] === null ? "M" : "L"}${place}`)).join("");
}

/** 1, 2 or 5 times a power of ten, just above the value. */
function niceTop(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 2, 5, 10].find((step) => step * power >= value);
}
