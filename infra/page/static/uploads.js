// Sends files to POST /v1/images, a few at a time. What may pass is tried again under the same idempotency key, so that nothing is
// taken twice; the server's `Retry-After` holds all of them back.

import { problemOf, Problem } from "./api.js";

const AT_ONCE = 3;
const FIRST_RETRY_MS = 1_000;
const LAST_RETRY_MS = 20_000;
const NAME_LENGTH = 200;
const SILENT_MS = 60_000; // neither progress nor an answer: the connection is taken for dead
const UNREADABLE = new Problem(415, { code: "unreadable" });

export class Uploads {
  #api;
  #album;
  #waiting = [];
  #sending = 0;
  #failures = 0;
  #heldUntil = 0;
  #timer = 0;
  #told = false; // whether the server itself said how long to wait

  constructor(api, album) {
    this.#api = api;
    this.#album = album;
  }

  add(files) {
    for (const file of files) this.#waiting.push({ picture: this.#album.add(file), key: chanceKey() });
    this.#next();
  }

  get open() {
    return this.#waiting.length + this.#sending;
  }

  /** The server is back: waits no longer, unless the server said how long. There is another key: waits no longer. */
  hurry(another = false) {
    if (this.#told && !another) return;
    this.#heldUntil = 0;
    this.#failures = 0;
    this.#next();
  }

  #next() {
    clearTimeout(this.#timer);
    const waitMs = this.#heldUntil - performance.now();
    if (waitMs > 0) {
      if (Number.isFinite(waitMs)) this.#timer = setTimeout(() => this.#next(), waitMs);
      return;
    }
    while (this.#sending < AT_ONCE && this.#waiting.length) this.#send(this.#waiting.shift());
  }

  async #send(upload) {
    const { picture } = upload;
    this.#sending++;
    picture.marks.sending = performance.now();
    this.#album.change(picture, { state: "uploading", sent: 0, problem: null });
    try {
      const { id } = await this.#post(upload);
      this.#failures = 0;
      picture.marks.accepted = performance.now();
      this.#album.accept(picture, id);
    } catch (problem) {
      this.#remedy(upload, problem.status === 0 && !(await isReadable(picture.file)) ? UNREADABLE : problem);
    }
    this.#sending--;
    this.#next();
  }

  #remedy(upload, problem) {
    const state = problem.passes || problem.status === 401 ? "waiting" : "refused";
    this.#album.change(upload.picture, { state, sent: 0, problem });
    if (state === "refused") return;
    this.#waiting.unshift(upload);
    const backOff = Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** this.#failures++);
    // Without a key nothing goes on until somebody gives one.
    this.#told = problem.retryAfterMs !== null;
    const waitMs = problem.status === 401 ? Infinity : (problem.retryAfterMs ?? backOff);
    this.#heldUntil = Math.max(this.#heldUntil, performance.now() + waitMs);
  }

  /** `fetch` tells nothing of how much has been sent; XMLHttpRequest does. */
  #post({ picture, key }) {
    const attributes = JSON.stringify({ name: picture.name.slice(0, NAME_LENGTH) });
    const request = new XMLHttpRequest();
    request.open("POST", `/v1/images?attributes=${encodeURIComponent(attributes)}`);
    const headers = { ...this.#api.headers, "Content-Type": picture.file.type || "application/octet-stream", "Idempotency-Key": key };
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    return new Promise((taken, failed) => {
      let watch = 0;
      const expect = () => {
        clearTimeout(watch);
        watch = setTimeout(() => request.abort(), SILENT_MS);
      };
      request.upload.onprogress = ({ loaded, total }) => {
        expect();
        this.#album.change(picture, { sent: total ? loaded / total : 0 });
      };
      request.onloadend = () => clearTimeout(watch);
      request.onerror = request.onabort = () => failed(new Problem(0));
      request.onload = () => {
        const { status, responseText } = request;
        if (status === 200 || status === 202) taken(JSON.parse(responseText));
        else failed(problemOf(status, responseText, request.getResponseHeader("Retry-After")));
      };
      expect();
      request.send(picture.file);
    });
  }
}

/** 128 random bits. `crypto.randomUUID` is missing where the page is served without TLS beyond this machine. */
const chanceKey = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

/** Browsers say the same of a server that is away and of a file that cannot be read: a folder, or one changed since it was chosen. */
const isReadable = (file) => file.slice(0, 1).arrayBuffer().then(() => true, () => false);
