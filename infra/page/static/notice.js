// What concerns the whole page: whether the server is there, whether it wants a key; and what screen readers are told.

import { byId } from "./dom.js";
import { seconds, sentence } from "./words.js";

const WORDS = { connecting: "Connecting", live: "Live", away: "Away", key: "Key wanted" };
const SAY_EVERY_MS = 1_000;
const SAY_AT_MOST = 3;

/** Shows the stream's state in the bar, and above everything what stands in the way. `enterKey()` opens the place for it. */
export class Notice {
  #box = byId("notice");
  #words = byId("notice-words");
  #action = byId("notice-action");
  #timer = 0;

  constructor(enterKey) {
    this.#action.addEventListener("click", enterKey);
  }

  tell({ state, problem, retryMs }) {
    byId("link-state").dataset.state = state;
    byId("link-words").textContent = WORDS[state];
    if (state === "connecting") return; // what stood in the way stays until it is known to be gone
    clearInterval(this.#timer);
    if (state === "live") this.#show("");
    else if (state === "key") this.#show(sentence(problem), true);
    else this.#away(problem ? sentence(problem) : "The connection to the server is gone.", performance.now() + retryMs);
  }

  /** The alert is said once; the seconds that go by stand in the bar. */
  #away(words, until) {
    this.#show(`${words} This page keeps trying; what you added waits here.`);
    const tick = () => {
      const leftMs = until - performance.now();
      byId("link-words").textContent = leftMs > 0 ? `Away, again in ${seconds(leftMs)}` : WORDS.connecting;
    };
    tick();
    this.#timer = setInterval(tick, 1_000);
  }

  #show(words, action = false) {
    if (this.#words.textContent !== words) this.#words.textContent = words;
    this.#action.hidden = !action;
    this.#box.hidden = !words;
  }
}

/** Tells screen readers what happened, joined so that many pictures are one sentence or two. */
export class Voice {
  #lines = [];
  #timer = 0;

  say(line) {
    this.#lines.push(line);
    this.#timer ||= setTimeout(() => this.#speak(), SAY_EVERY_MS);
  }

  #speak() {
    const more = this.#lines.length - SAY_AT_MOST;
    const lines = this.#lines.slice(0, SAY_AT_MOST).concat(more > 0 ? [`And ${more} more.`] : []);
    byId("said").textContent = lines.join(" ");
    this.#lines = [];
    this.#timer = 0;
  }
}
