// The HTTP API as this page needs it. Whatever goes wrong is a Problem, also that nobody answers (status 0).

const KEY = "sightstream.key";
const ANSWER_WITHIN_MS = 75_000; // longer than the longest poll

export class Problem extends Error {
  constructor(status, { code = "", detail = "" } = {}, retryAfter = null) {
    super(detail || code || `status ${status}`);
    this.status = status;
    this.code = code;
    this.detail = detail;
    this.retryAfterMs = retryAfter ? Number(retryAfter) * 1000 || null : null;
  }

  /** Whether the same request may succeed later without anybody doing anything. */
  get passes() {
    return [0, 408, 425, 429, 502, 503, 504].includes(this.status) || this.code === "idempotency_in_flight";
  }
}

/** The Problem of an answer's status and text, which need not be problem+json: a proxy may have said it. */
export function problemOf(status, text, retryAfter) {
  try {
    return new Problem(status, JSON.parse(text) ?? {}, retryAfter);
  } catch {
    return new Problem(status, {}, retryAfter);
  }
}

export class Api extends EventTarget {
  get key() {
    return sessionStorage.getItem(KEY) ?? "";
  }

  /** Keeps the key for this tab; says `key` to listeners. */
  set key(key) {
    if (key) sessionStorage.setItem(KEY, key);
    else sessionStorage.removeItem(KEY);
    this.dispatchEvent(new Event("key"));
  }

  get headers() {
    return this.key ? { Authorization: `Bearer ${this.key}` } : {};
  }

  async image(id, waitS = 0) {
    return this.#json(`/v1/images/${encodeURIComponent(id)}${waitS ? `?wait=${waitS}` : ""}`);
  }

  async images(limit) {
    return (await this.#json(`/v1/images?limit=${limit}`)).images;
  }

  /** The picture without its boxes, which the page draws itself: no detection has a score above 1. */
  async picture(id, side) {
    return (await this.#ask(`/v1/images/${encodeURIComponent(id)}/annotated?format=webp&min_score=1&max_side=${side}`)).blob();
  }

  /** The picture with the boxes that `filter` (min_score, labels) lets through, as a JPEG. */
  async annotated(id, filter) {
    const query = new URLSearchParams({ format: "jpeg", ...filter });
    return (await this.#ask(`/v1/images/${encodeURIComponent(id)}/annotated?${query}`)).blob();
  }

  async status() {
    return this.#json("/v1/status");
  }

  /** Whether this server is ready, part by part; 503 is an answer, too. */
  async readiness() {
    return this.#json("/readyz", {}, 503);
  }

  /** A one-time ticket for the websocket, since browsers let it carry no key. Empty where the server knows no tickets. */
  async ticket() {
    try {
      return (await this.#json("/v1/tickets", { method: "POST" })).ticket;
    } catch (problem) {
      if (problem.status === 404 || problem.status === 405) return "";
      throw problem;
    }
  }

  async #json(path, options, fine) {
    return (await this.#ask(path, options, fine)).json();
  }

  async #ask(path, options = {}, fine = 200) {
    const signal = AbortSignal.timeout(ANSWER_WITHIN_MS);
    const answer = await fetch(path, { ...options, headers: this.headers, cache: "no-store", signal }).catch(() => {
      throw new Problem(0);
    });
    if (answer.ok || answer.status === fine) return answer;
    const text = await answer.text().catch(() => "");
    throw problemOf(answer.status, text, answer.headers.get("Retry-After"));
  }
}
