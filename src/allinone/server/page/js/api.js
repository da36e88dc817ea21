/**
 * The HTTP API: JSON in and out, problems as `ApiError`, the key where the server wants one. Decides nothing about
 * what is shown. Neighbours: sse.js reads streams, chat/reply_stream.js keeps one going.
 */

import { ask, field, text } from "./dialogs.js";
import { el } from "./dom.js";
import { t } from "./i18n.js";
import { ofTab } from "./preferences.js";

const keyListeners = new Set();
let asking = null;

/** What the server says when it cannot do something (RFC 9457), or what kept us from asking. */
export class ApiError extends Error {
  constructor({ status = 0, code = "", title = "", detail = "", hint = "", request_id: requestId = "", ...rest }, retryAfterS = null) {
    super(detail || title || `HTTP ${status}`);
    Object.assign(this, { status, code, title, detail, hint, requestId, retryAfterS, problem: rest });
  }

  /** Whether the server was not reached at all. */
  get isOffline() {
    return this.status === 0;
  }
}

/** What to show of an error: our own words for lost connections, the server's for everything else. */
export function explain(error) {
  if (!(error instanceof ApiError)) return String(error.message ?? error);
  if (error.isOffline) return t("error.offline");
  return [error.message, error.hint].filter(Boolean).join(" ");
}

/** Whether a key is kept in this tab. */
export function hasKey() {
  return Boolean(ofTab.get("key"));
}

/** Forget the key and all that was seen with it. */
export function forgetKey() {
  ofTab.clear();
  location.hash = "";
  location.reload();
}

/** Call `listener` when a key was given. */
export function onKey(listener) {
  keyListeners.add(listener);
}

/** Ask the user for the key, once however many requests wait for it; whether one was given. */
export function askForKey() {
  asking ??= openKeyDialog().finally(() => (asking = null));
  return asking;
}

async function openKeyDialog() {
  const input = el("input", { type: "password", class: "input", required: true, autocomplete: "off", spellcheck: "false" });
  const given = await ask({
    title: "key.title",
    text: el("p", { i18n: hasKey() ? "key.wrong" : "key.needed" }),
    fields: [field(text("key.label"), input, text("key.kept"))],
    confirm: "key.use",
    read: () => input.value.trim(),
  });
  if (!given) return false;
  ofTab.set("key", given);
  for (const listener of keyListeners) listener();
  return true;
}

/**
 * Send a request and give the response once it is a good one.
 *
 * Raises: ApiError; AbortError when `signal` says so.
 */
export async function send(method, path, { body, signal, headers = {} } = {}) {
  for (;;) {
    const key = ofTab.get("key");
    const response = await fetchOnce(method, path, { body, signal, headers: { ...(key && { Authorization: `Bearer ${key}` }), ...headers } });
    if (response.ok) return response;
    const error = await readProblem(response);
    if (error.status !== 401) throw error;
    const isStale = key !== ofTab.get("key"); // another request got a key meanwhile
    if (!isStale && !(await askForKey())) throw error;
  }
}

async function fetchOnce(method, path, { body, signal, headers }) {
  const isJson = body !== undefined;
  try {
    return await fetch(path, {
      method,
      signal,
      headers: { ...(isJson && { "Content-Type": "application/json" }), ...headers },
      body: isJson ? JSON.stringify(body) : undefined,
      cache: "no-store",
      credentials: "same-origin",
      redirect: "error",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError({ title: "offline", detail: error.message });
  }
}

async function readProblem(response) {
  const retryAfter = Number.parseFloat(response.headers.get("Retry-After") ?? "");
  let problem = {};
  try {
    problem = await response.json();
  } catch {
    problem = { title: response.statusText }; // a proxy's own error page
  }
  return new ApiError({ ...problem, status: response.status }, Number.isFinite(retryAfter) ? retryAfter : null);
}

/** Send a request and read its JSON; null where there is no content. */
export async function call(method, path, options = {}) {
  const response = await send(method, path, options);
  return response.status === 204 ? null : response.json();
}

export const get = (path, options) => call("GET", path, options);
export const post = (path, body, options) => call("POST", path, { ...options, body });

/** Wait; ends early when `signal` is aborted, with its AbortError. */
export function sleep(ms, signal) {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(new DOMException("aborted", "AbortError"));
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => (clearTimeout(timer), reject(new DOMException("aborted", "AbortError"))), { once: true });
  });
}
