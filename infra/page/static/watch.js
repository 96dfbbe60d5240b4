// Reads through GET /v1/images/{id} what the stream did not tell: what was missed while the server was away, and what takes long.

const FIRST_LOOK_MS = 3_000;
const LAST_LOOK_MS = 20_000;
const GROWTH = 1.6;
const AT_ONCE = 4;
const EVERY_MS = 1_000;

export class Watch {
  #api;
  #album;
  #looks = new WeakMap(); // picture -> {at, waitMs}
  #reading = new Set();

  constructor(api, album) {
    this.#api = api;
    this.#album = album;
    setInterval(() => this.#look(), EVERY_MS);
  }

  /** Events were lost: read everything that is unfinished, now. */
  all() {
    for (const picture of this.#album.unfinished) this.#looks.set(picture, { at: 0, waitMs: FIRST_LOOK_MS });
    this.#look();
  }

  /** Read one image in full, such as one that was only heard of. Raises Problem. */
  async read(id, waitS = 0) {
    return this.#album.read(await this.#api.image(id, waitS));
  }

  #look() {
    const now = performance.now();
    for (const picture of this.#album.unfinished) {
      const next = this.#looks.get(picture) ?? { at: now + FIRST_LOOK_MS, waitMs: FIRST_LOOK_MS };
      this.#looks.set(picture, next);
      if (next.at <= now && !this.#reading.has(picture) && this.#reading.size < AT_ONCE) this.#one(picture, next);
    }
  }

  async #one(picture, { waitMs }) {
    this.#reading.add(picture);
    try {
      await this.read(picture.id);
    } catch (problem) {
      if (!problem.passes && problem.status !== 401) this.#album.change(picture, { state: "refused", problem });
    }
    const next = Math.min(LAST_LOOK_MS, waitMs * GROWTH);
    this.#looks.set(picture, { at: performance.now() + waitMs, waitMs: next });
    this.#reading.delete(picture);
    if (this.#reading.size === 0) this.#look();
  }
}
