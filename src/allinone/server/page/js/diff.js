/**
 * What differs between two texts, by words; by characters in scripts that have no spaces. Longest common subsequence,
 * after common ends were taken off. Knows no elements beyond `renderDiff`.
 */

import { el } from "./dom.js";

/** A table of more cells takes too long: such a middle is shown as replaced. */
const MAX_CELLS = 16_000_000;
const CHARACTERS = "\\p{Script=Han}\\p{Script=Hiragana}\\p{Script=Katakana}\\p{Script=Thai}"; // no spaces between words
const WORD = new RegExp(`[${CHARACTERS}]|[[\\p{L}\\p{M}\\p{N}_'’]--[${CHARACTERS}]]+|\\s+|[^]`, "gv");

/** A text as the pieces that are compared; joined they are the text. */
export function pieces(text) {
  return text.match(WORD) ?? [];
}

/** A text as lines, for files. */
export function lines(text) {
  return text.match(/[^\n]*\n|[^\n]+/g) ?? [];
}

/** The way from `before` to `after`: [{kind: "same" | "gone" | "new", text}], neighbours of one kind joined. */
export function diff(before, after, split = pieces) {
  const a = split(before);
  const b = split(after);
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start += 1;
  let end = 0;
  while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end += 1;
  const parts = [
    ...a.slice(0, start).map((text) => ({ kind: "same", text })),
    ...middle(a.slice(start, a.length - end), b.slice(start, b.length - end)),
    ...a.slice(a.length - end).map((text) => ({ kind: "same", text })),
  ];
  return join(parts);
}

function middle(a, b) {
  if (a.length * b.length > MAX_CELLS || !a.length || !b.length) return [...all("gone", a), ...all("new", b)];
  const width = b.length + 1;
  const length = new Uint32Array((a.length + 1) * width); // of the longest common subsequence of what is left
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      const at = i * width + j;
      length[at] = a[i] === b[j] ? length[at + width + 1] + 1 : Math.max(length[at + width], length[at + 1]);
    }
  }
  const parts = [];
  let i = 0;
  let j = 0;
  while (i < a.length && j < b.length) {
    if (a[i] === b[j]) parts.push({ kind: "same", text: a[(j += 1, i++)] });
    else if (length[(i + 1) * width + j] >= length[i * width + j + 1]) parts.push({ kind: "gone", text: a[i++] });
    else parts.push({ kind: "new", text: b[j++] });
  }
  return [...parts, ...all("gone", a.slice(i)), ...all("new", b.slice(j))];
}

function all(kind, texts) {
  return texts.map((text) => ({ kind, text }));
}

/** Neighbours of one kind in one; what is gone before what is new, wherever both stand together. */
function join(parts) {
  const joined = [];
  for (const part of parts) {
    const last = joined.at(-1);
    const before = joined.at(-2);
    if (last?.kind === part.kind) last.text += part.text;
    else if (last?.kind === "new" && part.kind === "gone") {
      if (before?.kind === "gone") before.text += part.text;
      else joined.splice(-1, 0, { ...part });
    } else joined.push({ ...part });
  }
  return joined;
}

/** How many places differ. */
export function countChanges(parts) {
  return parts.filter((part, i) => part.kind !== "same" && (i === 0 || parts[i - 1].kind === "same")).length;
}

/** Long stretches of lines that are the same, down to the few beside a change. */
export function shorten(parts, numKept = 3) {
  return parts.map((part, i) => {
    const all = lines(part.text);
    if (part.kind !== "same" || all.length <= 2 * numKept + 1) return part;
    const before = i === 0 ? [] : all.slice(0, numKept);
    const after = i === parts.length - 1 ? [] : all.slice(-numKept);
    return { kind: "same", text: [...before, "⋯\n", ...after].join("") };
  });
}

/** The parts as text with `<ins>` and `<del>`. */
export function renderDiff(parts) {
  const tags = { same: "span", gone: "del", new: "ins" };
  return el("div", { class: "diff text-box" }, parts.map(({ kind, text }) => el(tags[kind], {}, text)));
}
