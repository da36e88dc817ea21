/** CSV and TSV as RFC 4180 has them: quotes, doubled quotes, line ends inside quotes. Text in, rows out, and back. */

/**
 * The records of a text: {line, cells} with the 1-based line where each begins, or {line, error} for one that is wrong;
 * after that it goes on with the next line. Empty lines are skipped.
 *
 * `error` is a key: "csv.open" (a quote is never closed), "csv.after" (text after a closing quote).
 */
export function* parseCsv(text, delimiter = ",") {
  let at = 0;
  let line = 1;
  while (at < text.length) {
    const record = readRecord(text, at, delimiter);
    const raw = text.slice(at, record.end);
    if (record.error) {
      yield { line, error: record.error };
      const next = lineEnd(text, at);
      line += 1;
      at = next;
      continue;
    }
    if (record.cells.length > 1 || record.cells[0] !== "" || /"/.test(raw)) yield { line, cells: record.cells };
    line += countLines(raw);
    at = record.end;
  }
}

function readRecord(text, at, delimiter) {
  const cells = [];
  for (;;) {
    let cell = "";
    if (text[at] === '"') {
      let from = at + 1;
      for (;;) {
        const quote = text.indexOf('"', from);
        if (quote < 0) return { error: "csv.open" };
        cell += text.slice(from, quote);
        at = quote + 1;
        if (text[at] !== '"') break;
        cell += '"';
        from = at + 1;
      }
      if (at < text.length && text[at] !== delimiter && text[at] !== "\n" && text[at] !== "\r") return { error: "csv.after" };
    } else {
      const from = at;
      while (at < text.length && text[at] !== delimiter && text[at] !== "\n" && text[at] !== "\r") at += 1;
      cell = text.slice(from, at);
    }
    cells.push(cell);
    if (text[at] === delimiter) at += 1;
    else return { cells, end: text.startsWith("\r\n", at) ? at + 2 : Math.min(at + 1, text.length) };
  }
}

function lineEnd(text, at) {
  const found = /\r\n|\n|\r/g;
  found.lastIndex = at;
  return found.exec(text) ? found.lastIndex : text.length;
}

function countLines(raw) {
  return raw.match(/\r\n|\n|\r/g)?.length ?? 0;
}

/** One row as a line of CSV. */
export function formatRow(cells) {
  return cells.map(formatCell).join(",") + "\r\n";
}

function formatCell(value) {
  if (value === null || value === undefined) return "";
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return /[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
