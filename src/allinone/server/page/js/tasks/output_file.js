/** The answers of a batch as a file: the columns of the input, then ours. Text out; knows no elements. */

import { formatRow } from "./csv.js";

const OURS = {
  label: ["label", "p_max", "probs"],
  text: ["answer", "finish_reason"],
  chat: ["answer", "finish_reason"],
  json: ["answer", "finish_reason"],
};
const READ = {
  label: ({ label }) => label,
  p_max: ({ p_max: p }) => rounded(p),
  probs: ({ probs }) => Object.fromEntries(Object.entries(probs).map(([label, p]) => [label, rounded(p)])),
  answer: ({ kind, text, data }) => (kind === "json" ? data : text),
  finish_reason: ({ finish_reason: reason }) => reason,
};

function rounded(p) {
  return Number(p.toFixed(6));
}

/** Names for our columns that the file does not have yet: "label" becomes "label_2" beside a column "label". */
export function ourColumns(kind, columns) {
  const taken = new Set(columns);
  return [...OURS[kind], "error"].map((field) => {
    let name = field;
    for (let n = 2; taken.has(name); n += 1) name = `${field}_${n}`;
    taken.add(name);
    return { field, name };
  });
}

/**
 * CSV or JSON Lines of what has been answered so far, in the order of the file.
 *
 * `describeError` makes text of an answer's error and its line.
 */
export function formatAnswers(format, { kind, columns, entries, answers, describeError }) {
  const ours = ourColumns(kind, columns);
  const rows = entries.map((entry, i) => ({ entry, answer: answers[i] })).filter(({ answer }) => answer);
  const valueOf = (field, { entry, answer }) => (field === "error" ? (answer.error ? describeError(answer.error, entry.line) : null) : answer.result ? READ[field](answer.result) : null);
  if (format === "jsonl") {
    return rows.map((row) => {
      const record = Object.fromEntries(ours.map(({ field, name }) => [name, valueOf(field, row)]).filter(([, value]) => value !== null));
      return `${JSON.stringify({ ...row.entry.cells, ...record })}\n`;
    }).join("");
  }
  const header = formatRow([...columns, ...ours.map(({ name }) => name)]);
  const body = rows.map((row) => formatRow([...columns.map((name) => row.entry.cells?.[name]), ...ours.map(({ field }) => valueOf(field, row))]));
  return `\ufeff${header}${body.join("")}`; // spreadsheets need the mark to see UTF-8
}
