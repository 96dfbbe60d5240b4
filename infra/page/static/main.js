// Puts the page together.

import { Album } from "./album.js";
import { Api } from "./api.js";
import { useCamera } from "./camera.js";
import { byId } from "./dom.js";
import { Facts } from "./facts.js";
import { Feed } from "./feed.js";
import { Filter } from "./filter.js";
import { takeFiles } from "./intake.js";
import { List } from "./list.js";
import { Notice, Voice } from "./notice.js";
import { useSettings } from "./settings.js";
import { Shelf } from "./shelf.js";
import { Stage } from "./stage.js";
import { Status } from "./status.js";
import { Stream } from "./stream.js";
import { Uploads } from "./uploads.js";
import { Watch } from "./watch.js";
import { count, reason, sentence, tally } from "./words.js";

const RECENT = 24;
const STORE_MAY_TAKE_S = 5;

const api = new Api();
const album = new Album();
const filter = new Filter();
const shelf = new Shelf(api);
const stage = new Stage(filter, shelf);
const facts = new Facts(filter, stage);
const list = new List({ album, filter, shelf, choose });
const feed = new Feed(open);
const stream = new Stream(api);
const uploads = new Uploads(api, album);
const watch = new Watch(api, album);
const notice = new Notice(useSettings(api));
const voice = new Voice();
const status = new Status(api);

let chosen = null;
let follows = true; // the newest outcome is shown until somebody chooses

function show(picture) {
  chosen = picture;
  list.mark(picture);
  stage.show(picture);
  facts.show(picture);
}

function choose(picture) {
  follows = false;
  show(picture);
}

async function open(id) {
  try {
    choose(album.of(id) ?? (await watch.read(id, STORE_MAY_TAKE_S)));
    byId("stage").scrollIntoView({ block: "nearest" });
  } catch (problem) {
    voice.say(sentence(problem));
    feed.note(sentence(problem));
  }
}

function take(files) {
  follows = true;
  voice.say(`${count(files.length, "picture")} added.`);
  uploads.add(files);
  show(album.pictures[0]);
}

const OUTCOMES = {
  completed: ({ name, detections }) => `${name}: ${tally(detections)}.`,
  failed: ({ name, failure }) => `${name}: ${reason(failure)}`,
  refused: ({ name, problem }) => `${name}: ${sentence(problem)}`,
};
const told = new WeakSet();

album.addEventListener("changed", ({ detail: picture }) => {
  filter.learn(picture.detections);
  const outcome = OUTCOMES[picture.state];
  if (outcome && picture.file && !told.has(picture)) {
    told.add(picture);
    voice.say(outcome(picture));
    if (follows && picture.state === "completed" && !(chosen?.state in OUTCOMES)) show(picture);
  }
  if (picture !== chosen) return;
  stage.renew();
  facts.show(picture);
});
album.addEventListener("added", ({ detail }) => filter.learn(detail.detections));

stream.addEventListener("state", ({ detail }) => {
  notice.tell(detail);
  if (detail.state === "live") uploads.hurry();
});
stream.addEventListener("event", ({ detail }) => {
  album.hear(detail);
  feed.take(detail);
});
stream.addEventListener("missed", ({ detail: reason }) => {
  if (reason) feed.note("Some events were missed; unfinished pictures are read again.");
  watch.all();
});

api.addEventListener("key", () => {
  stream.start();
  uploads.hurry(true);
  recall();
});
window.addEventListener("online", () => stream.hurry());
document.addEventListener("visibilitychange", () => document.hidden || stream.hurry());
window.addEventListener("beforeunload", (event) => uploads.open && event.preventDefault());

byId("save").addEventListener("click", async () => {
  const { id, name } = chosen;
  try {
    const url = URL.createObjectURL(await api.annotated(id, filter.query));
    Object.assign(document.createElement("a"), { href: url, download: `${name.replace(/\.[^.]+$/, "")}-boxes.jpg` }).click();
    URL.revokeObjectURL(url);
  } catch (problem) {
    voice.say(sentence(problem));
  }
});

/** What this tenant sent lately, so that a page opened anew is not empty. */
async function recall() {
  const images = await api.images(RECENT).catch(() => []);
  for (const image of images.reverse()) if (!album.of(image.id)) album.read(image);
  if (!chosen && album.pictures.length) show(album.pictures[0]);
}

function turn() {
  const view = location.hash === "#status" ? "status" : "images";
  for (const name of ["images", "status"]) {
    byId(name).hidden = name !== view;
    if (name === view) byId(`to-${name}`).setAttribute("aria-current", "page");
    else byId(`to-${name}`).removeAttribute("aria-current");
  }
  document.title = view === "status" ? "Status – Sightstream" : "Sightstream";
  if (view === "status") status.show();
  else status.hide();
}

window.addEventListener("hashchange", turn);
takeFiles(take);
useCamera(take);
turn();
recall();
stream.start();
