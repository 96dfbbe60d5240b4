// What is known of the chosen picture: how it went, how long each step took, what was found.

import { byId, el, rove } from "./dom.js";
import { colourOf } from "./paint.js";
import { bytes, count, milliseconds, reason, sentence, STATES } from "./words.js";

const STEPS = [
  ["upload", "Upload and log", "From this browser until the log had confirmed it"],
  ["wait", "Wait", "In the log, until a worker took it"],
  ["fetch", "Fetch", "Reading the file from its store"],
  ["decode", "Decode", "From JPEG, PNG or WebP to pixels"],
  ["inference", "Inference", "In the detector"],
  ["rest", "Publish and push", "Whatever else passed until its boxes were here"],
];

export class Facts {
  #filter;
  #stage;
  #place = byId("facts");
  #picture = null;

  constructor(filter, stage) {
    this.#filter = filter;
    this.#stage = stage;
    filter.addEventListener("changed", () => this.#picture && this.show(this.#picture));
  }

  show(picture) {
    const focused = [...this.#place.querySelectorAll("button")].indexOf(document.activeElement);
    this.#picture = picture;
    byId("save").hidden = picture.state !== "completed";
    this.#place.replaceChildren(
      el("p", { className: "title" }, picture.name),
      summary(picture),
      ...explanation(picture),
      ...breakdown(picture),
      ...this.#findings(picture),
    );
    if (focused >= 0) this.#place.querySelectorAll("button")[focused]?.focus(); // news must not take the focus away
  }

  #findings(picture) {
    if (picture.state !== "completed") return [];
    const found = this.#filter.of(picture).sort((a, b) => b.score - a.score);
    const hidden = picture.detections.length - found.length;
    const note = hidden ? [el("p", { className: "help" }, `${count(hidden, "box", "boxes")} hidden by the filter.`)] : [];
    if (!found.length) return [el("p", { className: "help" }, hidden ? "" : "Nothing was found."), ...note];
    const list = el("ul", { className: "findings", "aria-label": "Detections" }, ...found.map((one) => this.#finding(one)));
    rove(list, "button")();
    return [el("h4", {}, "Detections"), list, ...note];
  }

  /** Its box stands out while the pointer or the focus is on it. */
  #finding(found) {
    const { label, score, box, class_id: classId } = found;
    const [x1, y1, x2, y2] = box.map(Math.round);
    const swatch = el("span", { className: "swatch", "aria-hidden": "true" });
    swatch.style.background = colourOf(classId);
    const button = el(
      "button",
      { type: "button", tabIndex: -1 },
      swatch,
      el("span", { className: "label" }, label),
      el("span", { className: "place" }, `${x2 - x1} × ${y2 - y1} at ${x1}, ${y1}`),
      el("span", { className: "score" }, score.toFixed(2)),
    );
    for (const type of ["focus", "pointerenter"]) button.addEventListener(type, () => this.#stage.point(found));
    for (const type of ["blur", "pointerleave"]) button.addEventListener(type, () => this.#stage.point(null));
    return el("li", {}, button);
  }
}

function summary({ state, file, width, height, model }) {
  const size = width ? `${width} × ${height}` : null;
  const detector = model ? [model.name, model.version].filter(Boolean).join(" ") : null;
  const known = [size, file && bytes(file.size), detector].filter(Boolean);
  return el(
    "p",
    { className: "summary" },
    el("span", { className: "state" }, STATES[state]),
    ...known.map((text) => el("span", {}, text)),
  );
}

function explanation({ problem, failure }) {
  if (problem) return [el("p", { className: "wrong" }, sentence(problem), problem.detail ? el("small", {}, problem.detail) : null)];
  if (!failure) return [];
  const { code, message, stage, attempts } = failure;
  const details = [message, code, stage && `in ${stage}`, attempts > 1 && `after ${attempts} attempts`].filter(Boolean);
  return [el("p", { className: "wrong" }, reason(failure), el("small", {}, details.join(", ")))];
}

/** Milliseconds of each step; what this browser did not see itself is left out. */
export function stepsOf({ timings, marks }) {
  const steps = { wait: timings?.wait_ms, fetch: timings?.fetch_ms, decode: timings?.decode_ms, inference: timings?.inference_ms };
  const known = Object.values(steps).reduce((sum, ms) => sum + (ms ?? 0), 0);
  if (marks.sending && marks.seen) {
    // The outcome may be here before the answer to the upload is.
    steps.upload = Math.max(0, Math.min(marks.accepted ?? marks.seen, marks.seen) - marks.sending);
    steps.total = marks.seen - marks.sending;
  } else {
    steps.total = timings?.total_ms;
  }
  if (timings && steps.total !== undefined) steps.rest = Math.max(0, steps.total - known - (steps.upload ?? 0));
  return steps;
}

function breakdown(picture) {
  const steps = stepsOf(picture);
  if (steps.total === undefined || steps.total === null || picture.state !== "completed") return [];
  const shown = STEPS.filter(([name]) => steps[name] !== undefined && steps[name] !== null);
  const bar = el("div", { className: "split", "aria-hidden": "true" });
  const rows = shown.map(([name, words, title]) => {
    const part = el("span", { className: `step ${name}` });
    part.style.flexGrow = String(steps[name]);
    bar.append(part);
    const key = el("span", { className: `key ${name}`, "aria-hidden": "true" });
    return el("div", { title }, el("dt", {}, key, words), el("dd", {}, milliseconds(steps[name])));
  });
  const total = el("div", { className: "total" }, el("dt", {}, "Total"), el("dd", {}, milliseconds(steps.total)));
  return [el("h4", {}, "Latency"), bar, el("dl", { className: "steps" }, ...rows, total)];
}
