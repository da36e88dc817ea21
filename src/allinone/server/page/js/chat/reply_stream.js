/**
 * One reply from its first event to its last, over as many connections as that takes. Knows the protocol of /v1/reply,
 * nothing of what is shown.
 */

import { ApiError, send, sleep } from "../api.js";
import { readEvents } from "../sse.js";

/** The server keeps an unread reply for 15 s. */
const MAX_LOST_MS = 20_000;
const FIRST_WAIT_MS = 300;
const MAX_WAIT_MS = 3_000;

/**
 * Iterate over the events `{type, data}` of a reply; `label`, `token`s, then `done` or `error`, each once.
 *
 * Args:
 *   request: the body of POST /v1/reply; null to go on with `answerId` (after a reload of the page).
 *   signal: ends it.
 *   onConnection: called with "lost" and "back".
 * Raises: ApiError. `error.isOffline` with no answer id: nobody knows whether the server got the message.
 */
export async function* replyEvents({ request, answerId = null, signal, onConnection }) {
  const place = { answerId, lastId: null };
  let lostAt = null;
  let wait = FIRST_WAIT_MS;
  for (;;) {
    try {
      const response = await connect(place, request, signal);
      for await (const event of readEvents(response)) {
        if (lostAt !== null) {
          onConnection("back");
          lostAt = null;
          wait = FIRST_WAIT_MS;
        }
        if (event.id) place.lastId = event.id;
        const data = JSON.parse(event.data);
        if (event.type === "label") place.answerId = data.id;
        yield { type: event.type, data };
        if (event.type === "done" || event.type === "error") return;
      }
      throw new ApiError({ title: "the stream ended early" });
    } catch (error) {
      if (signal.aborted || place.answerId === null || !isLost(error, place)) throw error;
      lostAt ??= Date.now();
      if (Date.now() - lostAt > MAX_LOST_MS) throw error;
      onConnection("lost");
      await sleep(wait, signal);
      wait = Math.min(2 * wait, MAX_WAIT_MS);
    }
  }
}

function connect({ answerId, lastId }, request, signal) {
  if (answerId === null) return send("POST", "/v1/reply", { body: request, signal, headers: { Accept: "text/event-stream" } });
  const headers = { Accept: "text/event-stream", ...(lastId && { "Last-Event-ID": lastId }) };
  return send("GET", `/v1/reply/${encodeURIComponent(answerId)}`, { signal, headers });
}

/**
 * Broken by the network, or by a proxy whose server is away for a moment; or another process of the server was asked, and
 * only the one that has the reply knows it.
 */
function isLost(error, { lastId }) {
  if (!(error instanceof ApiError)) return error instanceof TypeError;
  return error.isOffline || error.status === 502 || error.status === 504 || (error.status === 404 && lastId !== null);
}
