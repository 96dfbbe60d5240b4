// Which detections are shown: chosen classes (none chosen: all) with at least a score. Says `changed`.

import { byId, el, rove } from "./dom.js";
import { colourOf } from "./paint.js";

export class Filter extends EventTarget {
  #classes = new Map(); // label -> class_id
  #wanted = new Set();
  #chips = byId("chips");
  #settle = rove(this.#chips, "button");
  minScore = 0;

  constructor() {
    super();
    const [slider, words] = [byId("score"), byId("score-words")];
    slider.addEventListener("input", () => {
      this.minScore = slider.value / 100;
      words.textContent = this.minScore.toFixed(2);
      slider.setAttribute("aria-valuetext", words.textContent);
      this.#changed();
    });
    slider.dispatchEvent(new Event("input")); // browsers keep a form's values over a reload
  }

  /** The detections of a picture that are shown. */
  of({ detections }) {
    return detections.filter(({ label, score }) => score >= this.minScore && (!this.#wanted.size || this.#wanted.has(label)));
  }

  /** The same for the API. */
  get query() {
    return { min_score: this.minScore, ...(this.#wanted.size && { labels: [...this.#wanted].join(",") }) };
  }

  /** Offers the classes of these detections, too. */
  learn(detections) {
    const before = this.#classes.size;
    for (const { label, class_id: classId } of detections) this.#classes.set(label, classId);
    if (this.#classes.size !== before) this.#offer();
  }

  #offer() {
    const focused = this.#chips.contains(document.activeElement) ? document.activeElement.dataset.label : null;
    const labels = [...this.#classes.keys()].sort();
    this.#chips.replaceChildren(this.#chip("All classes", null), ...labels.map((label) => this.#chip(label, label)));
    this.#settle();
    if (focused !== null) [...this.#chips.children].find(({ dataset }) => dataset.label === focused).focus();
  }

  #chip(text, label) {
    const chip = el("button", { type: "button", className: "chip" });
    if (label !== null) {
      const swatch = el("span", { className: "swatch", "aria-hidden": "true" });
      swatch.style.background = colourOf(this.#classes.get(label));
      chip.append(swatch);
    }
    chip.append(text);
    chip.addEventListener("click", () => this.#choose(label));
    chip.dataset.label = label ?? "";
    this.#press(chip);
    return chip;
  }

  #choose(label) {
    if (label === null) this.#wanted.clear();
    else if (!this.#wanted.delete(label)) this.#wanted.add(label);
    for (const chip of this.#chips.children) this.#press(chip);
    this.#changed();
  }

  #press(chip) {
    const { label } = chip.dataset;
    chip.setAttribute("aria-pressed", String(label ? this.#wanted.has(label) : !this.#wanted.size));
  }

  #changed() {
    this.dispatchEvent(new Event("changed"));
  }
}
