/**
 * A file that somebody chose, as inputs: csv, tsv, jsonl or txt. Read here in the browser; a line that cannot be used is
 * an entry of its own, so that the rest goes on. Knows no task.
 */

import { parseCsv } from "./csv.js";

export const MAX_FILE_BYTES = 20 * 2 ** 20;

/** Why a file as a whole cannot be used; `key` and `values` say it. */
export class FileError extends Error {
  constructor(key, values = {}) {
    super(key);
    Object.assign(this, { key, values });
  }
}

/**
 * Read a file.
 *
 * Gives {format, encoding, columns, entries}; an entry is {line, cells: {column: value}} or {line, error: [key, values]}.
 * Raises: FileError.
 */
export async function readInputFile(file) {
  if (file.size > MAX_FILE_BYTES) throw new FileError("file.large", { limit: MAX_FILE_BYTES / 2 ** 20 });
  const { text, encoding } = decode(new Uint8Array(await file.arrayBuffer()));
  const format = formatOf(file.name);
  const { columns, entries } = READERS[format](text);
  if (!entries.length) throw new FileError("file.empty");
  return { format, encoding, columns, entries };
}

function formatOf(name) {
  const ending = name.toLowerCase().split(".").pop();
  if (ending === "json") throw new FileError("file.json");
  if (ending === "ndjson") return "jsonl";
  return ending in READERS ? ending : "txt";
}

/** UTF-8, UTF-16 by its mark, else GB 18030, which Chinese spreadsheets write; the mark is taken off. */
function decode(data) {
  const encoding = data[0] === 0xff && data[1] === 0xfe ? "utf-16le" : data[0] === 0xfe && data[1] === 0xff ? "utf-16be" : "utf-8";
  for (const name of [encoding, "gb18030"]) {
    try {
      const text = new TextDecoder(name, { fatal: true }).decode(data);
      if (text.slice(0, 8192).includes("\0")) break;
      return { text, encoding: name };
    } catch {
      continue; // not this one
    }
  }
  throw new FileError("file.binary");
}

function readTxt(text) {
  const entries = text
    .split(/\r\n|\n|\r/)
    .map((content, i) => ({ line: i + 1, cells: { text: content } }))
    .filter(({ cells }) => cells.text.trim());
  return { columns: ["text"], entries };
}

function readTable(text, delimiter) {
  const entries = [];
  let columns = null;
  for (const { line, cells, error } of parseCsv(text, delimiter)) {
    if (error && !columns) throw new FileError(error);
    if (error) entries.push({ line, error: [error, {}] });
    else if (!columns) columns = headerOf(cells);
    else if (cells.length !== columns.length) entries.push({ line, error: ["csv.width", { found: cells.length, wanted: columns.length }] });
    else entries.push({ line, cells: record(columns, cells) });
  }
  return { columns: columns ?? [], entries };
}

function headerOf(cells) {
  const twice = cells.find((name, i) => cells.indexOf(name) !== i);
  if (twice !== undefined) throw new FileError("csv.twice", { name: twice });
  return cells;
}

/** An object that has no inherited names: a column may be called "__proto__". */
function record(names, values) {
  const made = Object.create(null);
  names.forEach((name, i) => (made[name] = values[i]));
  return made;
}

function readJsonl(text) {
  const entries = [];
  const columns = new Set();
  text.split(/\r\n|\n/).forEach((content, i) => {
    if (!content.trim()) return;
    const value = parseObject(content);
    if (value === null) return entries.push({ line: i + 1, error: ["file.not_object", {}] });
    for (const name of Object.keys(value)) columns.add(name);
    entries.push({ line: i + 1, cells: record(Object.keys(value), Object.values(value)) });
  });
  return { columns: [...columns], entries };
}

function parseObject(text) {
  try {
    const value = JSON.parse(text);
    return value !== null && typeof value === "object" && !Array.isArray(value) ? value : null;
  } catch {
    return null;
  }
}

const READERS = {
  txt: readTxt,
  csv: (text) => readTable(text, ","),
  tsv: (text) => readTable(text, "\t"),
  jsonl: readJsonl,
};
