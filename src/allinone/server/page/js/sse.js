/**
 * Server-sent events from a `fetch` body: EventSource knows neither POST nor keys. Bytes in, events out; knows nothing
 * of what they mean. Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
 */

/** No byte for so long, pings included: the connection is dead, whatever the socket believes. */
export const MAX_SILENCE_MS = 25_000;

/** The parser alone: text in pieces of any size, events as they are complete. */
export class EventParser {
  constructor() {
    this.buffer = "";
    this.reset();
  }

  reset() {
    this.event = { type: "message", id: null, data: [] };
  }

  /** The events that this piece completes. */
  *push(piece) {
    this.buffer += piece;
    const isOpen = this.buffer.endsWith("\r"); // "\r\n" may be cut in the middle
    const lines = (isOpen ? this.buffer.slice(0, -1) : this.buffer).split(/\r\n|\n|\r/);
    this.buffer = lines.pop() + (isOpen ? "\r" : "");
    for (const line of lines) {
      if (line === "") {
        if (this.event.data.length) yield { ...this.event, data: this.event.data.join("\n") };
        this.reset();
      } else this.take(line);
    }
  }

  take(line) {
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "data") this.event.data.push(value);
    else if (name === "event") this.event.type = value;
    else if (name === "id") this.event.id = value;
  }
}

/** The events of a response; ends where the server or the network ends it. */
export async function* readEvents(response, { maxSilenceMs = MAX_SILENCE_MS } = {}) {
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  const parser = new EventParser();
  try {
    for (;;) {
      const { done, value } = await readWithin(reader, maxSilenceMs);
      if (done) return;
      yield* parser.push(decoder.decode(value, { stream: true }));
    }
  } finally {
    reader.cancel().catch(() => {}); // it may be broken already, and then there is nothing to cancel
  }
}

async function readWithin(reader, ms) {
  let timer;
  const silence = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new TypeError("the connection is silent")), ms);
  });
  try {
    return await Promise.race([reader.read(), silence]);
  } finally {
    clearTimeout(timer);
  }
}
