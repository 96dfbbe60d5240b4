// Results and failures as they happen, newest first. However many come, the page draws a bounded number once a frame.

import { nameOf } from "./album.js";
import { byId, eachFrame, el, rove } from "./dom.js";
import { clock, count, milliseconds, reason, tally } from "./words.js";

const ROWS = 100;
const RATE_OVER_MS = 10_000;

export class Feed {
  #list = byId("feed");
  #coming = [];
  #times = [];
  #paused = false;
  #open;
  #settle = rove(this.#list, "button");
  #draw = eachFrame(() => this.#show());

  /** `open(id)` is called when somebody chooses an event. */
  constructor(open) {
    this.#open = open;
    const pause = byId("feed-pause");
    pause.addEventListener("click", () => {
      this.#paused = !this.#paused;
      pause.setAttribute("aria-pressed", String(this.#paused));
      this.#draw();
    });
    setInterval(() => this.#rate(), 1_000);
  }

  take(event) {
    this.#times.push(performance.now());
    this.#enter(() => this.#row(event));
  }

  /** A line of our own, such as that something was missed. */
  note(words) {
    this.#enter(() => el("li", { className: "note" }, el("time", {}, clock(Date.now())), el("span", {}, words)));
  }

  #enter(make) {
    this.#coming.push(make);
    if (this.#coming.length > ROWS) this.#coming.shift();
    this.#draw();
  }

  #show() {
    if (this.#paused || !this.#coming.length) return;
    this.#list.prepend(...this.#coming.map((make) => make()).reverse());
    this.#coming = [];
    while (this.#list.children.length > ROWS) this.#list.lastElementChild.remove();
    byId("feed-empty").hidden = true;
    this.#settle();
  }

  #row(event) {
    const failed = event.type === "failed";
    const at = failed ? event.failed_at_ms : event.completed_at_ms;
    const took = failed ? null : event.completed_at_ms - event.submitted_at_ms;
    const button = el(
      "button",
      { type: "button", tabIndex: -1 },
      el("time", { dateTime: new Date(at).toISOString() }, clock(at)),
      el("span", { className: "name" }, nameOf(event)),
      el("span", { className: failed ? "outcome wrong" : "outcome" }, failed ? reason(event) : tally(event.detections)),
      el("span", { className: "took" }, took === null ? "" : milliseconds(Math.max(0, took))),
    );
    button.addEventListener("click", () => this.#open(event.image_id));
    return el("li", {}, button);
  }

  #rate() {
    const since = performance.now() - RATE_OVER_MS;
    while (this.#times[0] < since) this.#times.shift();
    const rate = this.#times.length / (RATE_OVER_MS / 1000);
    const waiting = this.#paused && this.#coming.length ? `${count(this.#coming.length, "event")} held back` : "";
    byId("feed-figures").textContent = waiting || (rate ? `${rate.toFixed(1)} per second` : "");
  }
}
