// The chosen picture, as large as there is room for, with the boxes that the filter lets through.

import { byId, eachFrame } from "./dom.js";
import { paintBoxes } from "./paint.js";
import { count, sentence, STATES, tally } from "./words.js";

const LATE_MS = 150;

export class Stage {
  #filter;
  #shelf;
  #room = byId("stage");
  #canvas = byId("canvas");
  #words = byId("stage-words");
  #wanted = null;
  #picture = null;
  #pixels = null;
  #coming = false;
  #chosen = null;
  draw = eachFrame(() => this.#draw());

  constructor(filter, shelf) {
    this.#filter = filter;
    this.#shelf = shelf;
    new ResizeObserver(this.draw).observe(this.#room);
    filter.addEventListener("changed", this.draw);
  }

  /** The picture before stays until this one's pixels are there, but not for long: no box is ever drawn on another picture. */
  async show(picture) {
    this.#wanted = picture;
    const late = setTimeout(() => this.#hang(picture, null, true), LATE_MS);
    const pixels = await this.#shelf.pixels(picture);
    clearTimeout(late);
    this.#hang(picture, pixels, false);
  }

  /** News of the picture: its boxes, or that the server has its pixels now. */
  renew() {
    if (this.#picture?.state === "completed" && !this.#pixels && !this.#coming) this.show(this.#picture);
    else this.draw();
  }

  /** Lets one detection stand out, or none. */
  point(detection) {
    this.#chosen = detection;
    this.draw();
  }

  #hang(picture, pixels, coming) {
    if (picture !== this.#wanted) return;
    if (picture !== this.#picture) this.#chosen = null;
    this.#picture = picture;
    this.#pixels = pixels;
    this.#coming = coming;
    this.draw();
  }

  #draw() {
    const picture = this.#picture;
    if (!picture) return;
    const found = this.#filter.of(picture);
    this.#say(picture, found);
    const size = this.#fit(picture);
    this.#canvas.hidden = !size;
    if (!size) return;
    const unit = window.devicePixelRatio || 1;
    const [width, height] = size.map((side) => Math.round(side * unit));
    Object.assign(this.#canvas, { width, height });
    const context = this.#canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    if (this.#pixels) context.drawImage(this.#pixels, 0, 0, width, height);
    if (picture.width) paintBoxes(context, found, { scale: width / picture.width, unit, chosen: this.#chosen });
  }

  /** Width and height in CSS pixels: all of the picture, never larger than twice its own size. Null while it is not known. */
  #fit(picture) {
    const [width, height] = picture.width ? [picture.width, picture.height] : [this.#pixels?.width, this.#pixels?.height];
    if (!width) return null;
    const scale = Math.min(this.#room.clientWidth / width, this.#room.clientHeight / height, 2);
    const size = [width * scale, height * scale];
    this.#canvas.style.width = `${size[0]}px`;
    this.#canvas.style.height = `${size[1]}px`;
    return size;
  }

  #say(picture, found) {
    const { name, state } = picture;
    const outcome = state === "completed" ? `${count(found.length, "box", "boxes")} shown: ${tally(found)}` : STATES[state];
    this.#canvas.setAttribute("aria-label", `${name}. ${outcome}`);
    const missing = this.#coming ? "The picture is on its way." : "There is no picture to show.";
    this.#words.textContent = picture.problem ? sentence(picture.problem) : missing;
    this.#words.hidden = Boolean(this.#pixels);
  }
}
