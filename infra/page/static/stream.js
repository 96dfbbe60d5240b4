// Follows /v1/stream for as long as the page is open, and takes up where it was by the last cursor.
//
// Says `state` ({state, problem, retryMs}), `event` (a result or failure) and `missed` (events were lost: read again what is unfinished).

const FIRST_RETRY_MS = 500;
const LAST_RETRY_MS = 15_000;
const SILENT_MS = 70_000; // the server says something every 25 s
const BACK_OFF = new Set([4001, 4003, 4029]);

export class Stream extends EventTarget {
  #api;
  #socket = null;
  #cursor = null;
  #failures = 0;
  #askedMs = null;
  #retry = 0;
  #watch = 0;
  #attempt = 0;

  constructor(api) {
    super();
    this.#api = api;
  }

  /** Connects now: at the start, with another key, or when something hints that the server is back. */
  start() {
    this.#drop();
    this.#connect(++this.#attempt);
  }

  /** Does not wait any longer, where it waits. */
  hurry() {
    if (this.#retry) this.start();
  }

  async #connect(attempt) {
    this.#tell("connecting");
    let ticket;
    try {
      ticket = await this.#api.ticket();
    } catch (problem) {
      if (attempt === this.#attempt) this.#later(problem);
      return;
    }
    if (attempt !== this.#attempt) return;
    const url = new URL("/v1/stream", location.href);
    url.protocol = url.protocol.replace("http", "ws");
    if (ticket) url.searchParams.set("ticket", ticket);
    this.#listen(new WebSocket(url), this.#cursor);
  }

  #listen(socket, since) {
    this.#socket = socket;
    socket.onopen = () => {
      socket.send(JSON.stringify({ type: "subscribe", ...(since && { since }) }));
      this.#expect();
    };
    socket.onmessage = ({ data }) => {
      this.#expect();
      for (const message of JSON.parse(data)) this.#take(message);
    };
    socket.onclose = ({ code }) => {
      this.#drop();
      this.#later(null, BACK_OFF.has(code) ? LAST_RETRY_MS : 0);
    };
  }

  #take(message) {
    this.#cursor = message.cursor ?? this.#cursor;
    if (message.type === "result" || message.type === "failed") this.#say("event", message);
    else if (message.type === "reconnect") this.#askedMs = message.reconnect_after_ms;
    else if (message.type === "subscribed") {
      this.#failures = 0;
      this.#tell("live");
      if (!message.recovered) this.#say("missed", message.reason ?? null);
    } else if (message.type === "gap") this.#say("missed", message.reason);
  }

  /** Half of the wait is chance, so that all pages do not come back at once. */
  #later(problem, leastMs = 0) {
    if (problem?.status === 401) {
      this.#tell("key", problem);
      return;
    }
    const most = Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** this.#failures++);
    const retryMs = Math.max(leastMs, problem?.retryAfterMs ?? this.#askedMs ?? most * (0.5 + Math.random() / 2));
    this.#askedMs = null;
    this.#retry = setTimeout(() => this.start(), retryMs);
    this.#tell("away", problem, retryMs);
  }

  /** A connection may die without a word: where nothing was heard for long, it is taken for dead. */
  #expect() {
    clearTimeout(this.#watch);
    this.#watch = setTimeout(() => this.start(), SILENT_MS);
  }

  #drop() {
    clearTimeout(this.#retry);
    clearTimeout(this.#watch);
    this.#retry = 0;
    if (!this.#socket) return;
    this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket.close();
    this.#socket = null;
  }

  #tell(state, problem = null, retryMs = null) {
    this.#say("state", { state, problem, retryMs });
  }

  #say(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
