// The status view: asks /v1/status and /readyz while it is looked at, and remembers the last minutes for the curves.

import { byId, el } from "./dom.js";
import { clock, milliseconds, sentence } from "./words.js";

const EVERY_MS = 2_000;
const KEPT = 150; // five minutes

const number = (value) => (value === null || value === undefined ? "–" : value.toLocaleString("en", { maximumFractionDigits: 1 }));

/** name, words, how to read and to write the value, what it means */
const TILES = [
  ["throughput", "Throughput", (s) => s.throughput_per_s, (v) => `${number(v)} /s`, "images with an outcome"],
  ["p50", "Latency, median", (s) => s.latency_ms?.p50, milliseconds, "from submission to result"],
  ["p95", "Latency, 95 %", (s) => s.latency_ms?.p95, milliseconds, "of images took at most this"],
  ["p99", "Latency, 99 %", (s) => s.latency_ms?.p99, milliseconds, "of images took at most this"],
  ["online", "Lag, online", (s) => s.lag?.online, number, "images wait in the fast lane"],
  ["bulk", "Lag, bulk", (s) => s.lag?.bulk, number, "images wait in the bulk lane"],
  ["store", "Lag, store", (s) => s.lag?.store, number, "records the result store has to take"],
];

export class Status {
  #api;
  #timer = 0;
  #looked = 0;
  #past = new Map(TILES.map(([name]) => [name, []]));
  #tiles;

  constructor(api) {
    this.#api = api;
    this.#tiles = new Map(TILES.map((tile) => [tile[0], makeTile(tile)]));
    byId("tiles").append(...[...this.#tiles.values()].map(({ node }) => node));
  }

  show() {
    this.hide();
    this.#ask(this.#looked);
  }

  hide() {
    clearTimeout(this.#timer);
    this.#looked++;
  }

  async #ask(look) {
    const [status, readiness] = await Promise.allSettled([this.#api.status(), this.#api.readiness()]);
    if (look !== this.#looked) return; // nobody looks any more, or again
    if (status.status === "fulfilled") this.#tell(status.value);
    else byId("status-age").textContent = sentence(status.reason);
    byId("health").replaceChildren(...partsOf(readiness));
    this.#timer = setTimeout(() => this.#ask(look), EVERY_MS);
  }

  #tell(status) {
    for (const [name, , read, write] of TILES) {
      const value = read(status) ?? null;
      const past = this.#past.get(name);
      past.push(value);
      if (past.length > KEPT) past.shift();
      const { figure, curve } = this.#tiles.get(name);
      figure.textContent = write(value);
      drawCurve(curve, past);
    }
    byId("models").replaceChildren(...(status.models ?? []).map(modelRow));
    const { backend, behind_s: behind } = status.store ?? {};
    const store = backend ? `, store: ${backend}${behind ? `, ${number(behind)} s behind` : ""}` : "";
    byId("status-age").textContent = `As of ${clock(Date.now())}${store}`;
  }
}

function makeTile([name, words, , , meaning]) {
  const figure = el("dd", { className: "figure" }, "–");
  const curve = el("canvas", { className: "curve", "aria-hidden": "true" });
  const [help, room] = [el("dd", { className: "help" }, meaning), el("dd", { className: "room" }, curve)];
  const node = el("dl", { className: "tile" }, el("dt", {}, words), figure, help, room);
  node.dataset.name = name;
  return { node, figure, curve };
}

function drawCurve(canvas, values) {
  const unit = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth * unit, canvas.clientHeight * unit];
  if (!width) return;
  Object.assign(canvas, { width, height });
  const most = Math.max(...values.map((value) => value ?? 0), Number.MIN_VALUE);
  const context = canvas.getContext("2d");
  context.strokeStyle = getComputedStyle(canvas).color;
  context.lineWidth = 1.5 * unit;
  context.lineJoin = "round";
  context.beginPath();
  values.forEach((value, index) => {
    const x = width - ((values.length - 1 - index) / (KEPT - 1)) * width;
    const y = height - unit - ((value ?? 0) / most) * (height - 3 * unit);
    if (index) context.lineTo(x, y);
    else context.moveTo(x, y);
  });
  context.stroke();
}

function modelRow({ name, version, digest, last_seen_at: seen }) {
  const short = digest ? digest.replace("sha256:", "").slice(0, 12) : "–";
  const cells = [name, version || "–", el("code", { title: digest ?? "" }, short), seen ? new Date(seen).toLocaleString("en-GB") : "–"];
  return el("tr", {}, ...cells.map((cell) => el("td", {}, cell)));
}

function partsOf({ status, value, reason }) {
  if (status === "rejected") return [el("li", { className: "wrong" }, sentence(reason))];
  const { status: verdict, ...complaints } = value;
  const missing = Object.entries(complaints).map(([part, complaint]) => el("li", { className: "wrong" }, `${part}: ${complaint}`));
  return missing.length ? missing : [el("li", {}, verdict === "ready" ? "Ready: every part does its work." : String(verdict))];
}
