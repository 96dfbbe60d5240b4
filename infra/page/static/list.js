// The list of pictures: one tab stop, arrows choose.

import { byId, eachFrame, el, rove } from "./dom.js";
import { paintBoxes } from "./paint.js";
import { count, reason, sentence, STATES } from "./words.js";

const TALLEST = 96; // pixels of a thumbnail, for screens with two of them for each CSS pixel

export class List {
  #filter;
  #shelf;
  #album;
  #choose;
  #rows = new Map(); // picture -> the elements of its row
  #list = byId("list");
  #settle;
  #figures = eachFrame(() => this.#count());

  /** `choose(picture)` is called when somebody chooses one. */
  constructor({ album, filter, shelf, choose }) {
    this.#album = album;
    this.#filter = filter;
    this.#shelf = shelf;
    this.#choose = choose;
    this.#settle = rove(this.#list, "button", (button) => button.click());
    album.addEventListener("added", ({ detail }) => this.#add(detail));
    album.addEventListener("changed", ({ detail }) => this.#update(detail));
    album.addEventListener("removed", ({ detail }) => this.#remove(detail));
    filter.addEventListener("changed", () => album.pictures.forEach((picture) => this.#update(picture)));
  }

  mark(chosen) {
    for (const [picture, { button }] of this.#rows) button.setAttribute("aria-current", String(picture === chosen));
    const row = this.#rows.get(chosen)?.row;
    if (row) bringInto(this.#list, row);
  }

  #add(picture) {
    const parts = rowOf(picture);
    parts.button.addEventListener("click", () => this.#choose(picture));
    this.#rows.set(picture, parts);
    this.#list.prepend(parts.row);
    this.#update(picture);
    this.#settle();
    this.#picture(picture);
  }

  async #picture(picture) {
    const parts = this.#rows.get(picture);
    parts.asked = picture.state;
    parts.pixels = await this.#shelf.thumbnail(picture);
    this.#paint(picture, parts);
  }

  #update(picture) {
    const parts = this.#rows.get(picture);
    if (!parts) return;
    const { row, words, progress } = parts;
    row.dataset.state = picture.state;
    words.textContent = this.#words(picture);
    progress.hidden = picture.state !== "uploading";
    progress.value = picture.sent;
    this.#paint(picture, parts);
    this.#figures();
    // The server has the pixels of an image only once it is done.
    if (!picture.file && picture.state === "completed" && parts.asked && parts.asked !== "completed") this.#picture(picture);
  }

  #words(picture) {
    const { state, problem, failure, sent } = picture;
    if (problem) return sentence(problem);
    if (state === "uploading") return sent < 1 ? `Uploading, ${Math.floor(sent * 100)} %` : "Uploaded, being taken";
    if (state === "completed") return count(this.#filter.of(picture).length, "box", "boxes");
    return state === "failed" && failure ? reason(failure) : STATES[state];
  }

  #paint(picture, { canvas, pixels }) {
    if (!pixels) return;
    const scale = Math.min(1, TALLEST / pixels.height);
    canvas.width = pixels.width * scale;
    canvas.height = pixels.height * scale;
    const context = canvas.getContext("2d");
    context.drawImage(pixels, 0, 0, canvas.width, canvas.height);
    if (picture.width) paintBoxes(context, this.#filter.of(picture), { scale: canvas.width / picture.width, unit: 1, tags: false });
  }

  #remove(picture) {
    this.#rows.get(picture)?.row.remove();
    this.#rows.delete(picture);
    this.#settle();
  }

  #count() {
    const pictures = this.#album.pictures;
    const done = pictures.filter(({ state }) => ["completed", "failed", "refused"].includes(state)).length;
    byId("list-figures").textContent = pictures.length ? `${done} of ${pictures.length} done` : "";
    byId("list-empty").hidden = pictures.length > 0;
  }
}

/** The elements of a picture's row, and its thumbnail once there is one. */
function rowOf({ name }) {
  const canvas = el("canvas", { width: 0, height: 0, "aria-hidden": "true" });
  const words = el("span", { className: "words" });
  const button = el(
    "button",
    { type: "button", className: "card", "aria-current": "false", tabIndex: -1, title: name },
    el("span", { className: "thumb" }, canvas),
    el("span", { className: "name" }, name),
    words,
  );
  const progress = el("progress", { max: 1, value: 0, hidden: true, "aria-label": `Upload of ${name}` });
  return { row: el("li", {}, button, progress), button, progress, canvas, words, pixels: null };
}

/** Scrolls the list, and nothing around it. */
function bringInto(list, row) {
  const [room, place] = [list.getBoundingClientRect(), row.getBoundingClientRect()];
  const past = (start, end, from, to) => Math.max(0, end - to) || Math.min(0, start - from);
  list.scrollBy(past(place.left, place.right, room.left, room.right), past(place.top, place.bottom, room.top, room.bottom));
}
