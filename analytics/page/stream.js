// Server-sent events read with fetch(), because EventSource cannot send an Authorization header.

import { authorisation } from './api.js';

const BACKOFF_FIRST_MS = 1_000;
const BACKOFF_LAST_MS = 15_000;
/** A tick comes every second; this long without one means that the connection is dead. */
const SILENCE_MS = 10_000;
/** No event is anywhere near this long: an unbounded line must not fill the memory. */
const LONGEST_EVENT_CHARS = 4_000_000;

/** Cuts a text stream into events. Feed it chunks; it calls `onEvent(name, data)`. */
export class EventParser {
  #onEvent;
  #rest = '';
  #name = '';
  #data = [];

  constructor(onEvent) {
    this.#onEvent = onEvent;
  }

  push(chunk) {
    this.#rest += chunk;
    if (this.#rest.length > LONGEST_EVENT_CHARS) throw new Error('an event is too long');
    const lines = this.#rest.split('\n');
    this.#rest = lines.pop();
    for (const line of lines) this.#line(line.endsWith('\r') ? line.slice(0, -1) : line);
  }

  #line(line) {
    if (line === '') {
      if (this.#data.length > 0) this.#onEvent(this.#name || 'message', this.#data.join('\n'));
      this.#name = '';
      this.#data = [];
      return;
    }
    const colon = line.indexOf(':');
    if (colon === 0) return; // a comment, sent to keep the connection open
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
    if (field === 'event') this.#name = value;
    else if (field === 'data') this.#data.push(value);
  }
}

/**
 * Keeps one stream open for ever.
 *
 * `onEvent(name, data)` gets every event; `onState(state)` gets
 * `{kind: 'connecting' | 'live'}`, `{kind: 'waiting', retryAtMs, reason}` or
 * `{kind: 'unauthorised', refused}`, after which it waits for `retryNow()`.
 */
export class LiveStream {
  #url;
  #onEvent;
  #onState;
  #attempt = 0;
  #timer = 0;
  #abort = null;

  constructor(url, { onEvent, onState }) {
    this.#url = url;
    this.#onEvent = onEvent;
    this.#onState = onState;
  }

  /** Connects at once, whatever is going on. */
  retryNow() {
    clearTimeout(this.#timer);
    this.#abort?.abort();
    this.#connect();
  }

  async #connect() {
    const abort = new AbortController();
    this.#abort = abort;
    this.#onState({ kind: 'connecting' });
    let reason = 'the connection was closed';
    try {
      const headers = { accept: 'text/event-stream', ...authorisation() };
      // The watch starts before the answer: a server that never answers counts as silent too.
      const watch = this.#watch(abort);
      try {
        const response = await fetch(this.#url, { headers, cache: 'no-store', signal: abort.signal });
        if (response.status === 401 || response.status === 403) {
          abort.abort();
          this.#onState({ kind: 'unauthorised', refused: 'authorization' in headers });
          return;
        }
        if (!response.ok) throw new Error(`the server answered ${response.status}`);
        await this.#read(response.body, watch);
      } finally {
        watch.stop();
      }
    } catch (error) {
      if (this.#abort !== abort) return; // replaced by retryNow()
      reason = error.name === 'AbortError' ? 'the server went silent' : error.name === 'TypeError' ? 'the server cannot be reached' : error.message;
    }
    if (this.#abort === abort) this.#waitAndRetry(reason, abort);
  }

  async #read(body, watch) {
    const parser = new EventParser((name, data) => {
      this.#attempt = 0;
      this.#onState({ kind: 'live' });
      this.#onEvent(name, JSON.parse(data));
    });
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      watch.heard();
      parser.push(value);
    }
  }

  #watch(abort) {
    let timer = setTimeout(() => abort.abort(), SILENCE_MS);
    return {
      heard() {
        clearTimeout(timer);
        timer = setTimeout(() => abort.abort(), SILENCE_MS);
      },
      stop: () => clearTimeout(timer),
    };
  }

  #waitAndRetry(reason, abort) {
    abort.abort(); // frees the socket when the stream broke on our side
    // Full steps with jitter, so that many open pages do not return in one moment.
    const step = Math.min(BACKOFF_LAST_MS, BACKOFF_FIRST_MS * 2 ** this.#attempt);
    const delayMs = Math.round(step * (0.75 + Math.random() * 0.5));
    this.#attempt += 1;
    this.#onState({ kind: 'waiting', retryAtMs: Date.now() + delayMs, reason });
    this.#timer = setTimeout(() => this.#connect(), delayMs);
  }
}
