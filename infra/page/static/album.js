// The pictures that this page knows: files that it sends and images that it heard or read of.
//
// Says `added`, `changed` and `removed`, each with the picture. A picture's `state` is waiting, uploading, queued, processing, completed,
// failed or refused.

const EARLY = 2_000; // outcomes kept for pictures whose answer from the gateway is still under way

let numbers = 0;

/** What stands for a picture before anything is known of it. */
const blank = () => ({
  number: ++numbers,
  id: null,
  name: "",
  file: null,
  state: "waiting",
  sent: 0,
  problem: null,
  detections: [],
  width: null,
  height: null,
  model: null,
  timings: null,
  failure: null,
  marks: {}, // performance.now() at: sending, accepted, seen
});

export class Album extends EventTarget {
  #pictures = [];
  #byId = new Map();
  #early = new Map();

  /** Newest first. */
  get pictures() {
    return this.#pictures;
  }

  get unfinished() {
    return this.#pictures.filter(({ state }) => state === "queued" || state === "processing");
  }

  of(id) {
    return this.#byId.get(id);
  }

  /** A picture to be sent. */
  add(file) {
    return this.#enter({ ...blank(), name: file.name, file });
  }

  /** The gateway took a picture under this id; its outcome may have come before. */
  accept(picture, id) {
    const known = this.#byId.get(id);
    if (known && known !== picture) this.#forget(known);
    this.#byId.set(id, picture);
    this.change(picture, { id, state: "queued", sent: 1, problem: null });
    const early = this.#early.get(id);
    this.#early.delete(id);
    if (early) this.hear(early);
  }

  /** An outcome as the stream tells it. */
  hear(event) {
    const picture = this.#byId.get(event.image_id);
    if (!picture) {
      this.#early.set(event.image_id, event);
      if (this.#early.size > EARLY) this.#early.delete(this.#early.keys().next().value);
    } else if (event.type === "result") {
      const { detections, model, image_width: width, image_height: height } = event;
      const timings = { ...event.timings, total_ms: event.completed_at_ms - event.submitted_at_ms };
      this.#finish(picture, { state: "completed", detections, model, width, height, timings, failure: null });
    } else if (picture.state !== "completed") {
      const { code, message, stage, attempts } = event;
      this.#finish(picture, { state: "failed", failure: { code, message, stage, attempts } });
    }
  }

  /** An image as the API gives it: newer than anything heard before it was asked for. */
  read(image) {
    const { id, status: state, detections, model, width, height, timings, failure } = image;
    const facts = { state, detections, model, width, height, timings, failure };
    const picture = this.#byId.get(id) ?? this.#enter({ ...blank(), id, name: nameOf(image), ...facts });
    const finished = state === "completed" || state === "failed";
    // The store may be a moment behind the stream: what is finished stays so.
    if (finished) this.#finish(picture, facts);
    else if (picture.state === "queued") this.change(picture, { state });
    return picture;
  }

  change(picture, facts) {
    Object.assign(picture, facts);
    this.#say("changed", picture);
  }

  #finish(picture, facts) {
    picture.marks.seen ??= performance.now();
    this.change(picture, facts);
  }

  #enter(picture) {
    this.#pictures.unshift(picture);
    if (picture.id) this.#byId.set(picture.id, picture);
    this.#say("added", picture);
    return picture;
  }

  #forget(picture) {
    this.#pictures = this.#pictures.filter((other) => other !== picture);
    this.#say("removed", picture);
  }

  #say(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** What people may know an image by: the file's name where this page sent it, else its key, else the beginning of its id. */
export const nameOf = ({ attributes, key, id, image_id: imageId }) => {
  const identity = id && !imageId ? id : imageId;
  return attributes?.name || (key && key !== identity ? key : "") || identity.slice(0, 12);
};
