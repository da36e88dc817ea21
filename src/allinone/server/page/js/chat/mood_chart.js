/** The mood over a conversation as a small line: good above, bad below, one dot a turn. */

import { el, fill, svg } from "../dom.js";
import { onLanguage, percent, t } from "../i18n.js";
import { tone, valence } from "../mood.js";

const HEIGHT = 40;
const EDGE = 7;
const STEP = 22;
const MAX_TURNS = 40;

export class MoodChart {
  constructor() {
    this.node = el("div", { class: "mood-chart", hidden: true });
    this.moods = [];
    onLanguage(() => this.draw(this.moods));
  }

  /** Draw the moods of all turns; nothing before there are two. */
  draw(moods) {
    this.moods = moods;
    const points = moods.map((mood, i) => ({ mood, number: i + 1, value: valence(mood) })).filter(({ value }) => value !== null).slice(-MAX_TURNS);
    this.node.hidden = points.length < 2;
    if (this.node.hidden) return;
    const width = 2 * EDGE + STEP * (points.length - 1);
    const place = ({ value }, i) => [EDGE + i * STEP, EDGE + ((1 - value) / 2) * (HEIGHT - 2 * EDGE)];
    const line = points.map((point, i) => place(point, i).map((x) => x.toFixed(1)).join(" ")).join(" L");
    const label = points.map(({ mood, number }) => `${number}. ${mood.label} ${percent(mood.p_max ?? 1)}`).join("; ");
    const dots = points.map((point, i) => {
      const [cx, cy] = place(point, i);
      const { mood, number } = point;
      const title = svg("title", {}, `${number}. ${mood.emoji ?? ""} ${mood.label} ${percent(mood.p_max ?? 1)}`);
      return svg("circle", { cx, cy, r: 4.5, class: `dot tone-${tone(mood.label, mood.name)}` }, title);
    });
    fill(
      this.node,
      svg(
        "svg",
        { viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, role: "img", "aria-label": `${t("chat.chart")}: ${label}` },
        svg("line", { x1: 0, x2: width, y1: HEIGHT / 2, y2: HEIGHT / 2, class: "zero" }),
        svg("path", { d: `M${line}`, class: "line" }),
        dots,
      ),
    );
  }
}
