// Pixels of pictures: from the file where this page has it, else from the server. Few are kept decoded, since they are large.

const SIDE = 2_048; // of what the server is asked for, and what is kept of large files
const KEPT = 6;
const THUMB = 96;

export class Shelf {
  #api;
  #kept = new Map();
  #turn = Promise.resolve();

  constructor(api) {
    this.#api = api;
  }

  /** An ImageBitmap, upright, or null where the browser cannot show it or nobody has it. */
  async pixels(picture) {
    const { number } = picture;
    const pixels = this.#kept.get(number) ?? this.#load(picture);
    this.#kept.delete(number);
    this.#kept.set(number, pixels); // the newest last
    if (this.#kept.size > KEPT) this.#release(this.#kept.keys().next().value);
    return pixels;
  }

  /** A small one, not kept here. The server is asked for one after another: it has other things to do. */
  async thumbnail(picture) {
    const small = { resizeHeight: THUMB, resizeQuality: "medium" };
    if (picture.file) return createImageBitmap(picture.file, small).catch(() => null);
    const ask = async () => createImageBitmap(await this.#api.picture(picture.id, THUMB * 2), small);
    this.#turn = this.#turn.then(ask).catch(() => null);
    return this.#turn;
  }

  async #load(picture) {
    const blob = picture.file ?? (await this.#api.picture(picture.id, SIDE).catch(() => null));
    const pixels = blob && (await createImageBitmap(blob).catch(() => null));
    if (!pixels) this.#kept.delete(picture.number); // it may be had another time
    return pixels && shrunk(pixels);
  }

  async #release(number) {
    const pixels = this.#kept.get(number);
    this.#kept.delete(number);
    (await pixels)?.close();
  }
}

async function shrunk(pixels) {
  const scale = SIDE / Math.max(pixels.width, pixels.height);
  if (scale >= 1) return pixels;
  const [resizeWidth, resizeHeight] = [pixels.width, pixels.height].map((side) => Math.max(1, Math.round(side * scale)));
  const small = await createImageBitmap(pixels, { resizeWidth, resizeHeight, resizeQuality: "high" });
  pixels.close();
  return small;
}
