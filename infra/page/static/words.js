// What people are told: problems, states and figures in plain words.

const BY_CODE = {
  unreadable: "This file cannot be read, or not any more.",
  image_too_many_pixels: "This picture has too many pixels.",
  image_corrupt: "This file cannot be read as a picture.",
  image_empty: "This file is empty.",
  image_too_large: "This picture is too large.",
  image_not_found: "The picture is not where it should be.",
  fetch_timeout: "Fetching the picture took too long.",
  fetch_failed: "The picture could not be fetched.",
  deadline_expired: "Its time was up before it could be looked at.",
  model_unknown: "There is no such model.",
  detector_failed: "The detector failed on this picture.",
  decoder_failed: "The decoder failed on this picture.",
  image_infected: "The virus scan refused this file.",
  picture_unavailable: "The original picture is gone.",
  deleted: "This picture was deleted.",
  quota_exceeded: "The quota of today is used up.",
  overloaded: "More waits here than can be worked on. It goes on as soon as there is room.",
  origin_forbidden: "The server does not let pages of this address in.",
  not_ready: "The server is starting.",
  not_confirmed: "The log did not confirm in time. It is sent again.",
  store_behind: "Results are a little behind. They are asked for again.",
  scanner_unavailable: "The virus scanner does not answer; nothing is let in until it does.",
};

const BY_STATUS = {
  0: "The server does not answer.",
  401: "This server wants an API key.",
  403: "Your API key does not allow this.",
  404: "There is no such picture.",
  410: "This picture is no longer kept.",
  413: "This file is too large.",
  415: "This file is not a JPEG, PNG or WebP picture.",
  429: "Too much at once.",
  500: "The server made a mistake.",
  502: "The server cannot be reached.",
  503: "The server cannot take this now.",
  504: "The server took too long.",
};

/** One sentence for a Problem. What the server says in its own words stands beside it, in `problem.detail`. */
export const sentence = (problem) => BY_CODE[problem.code] ?? BY_STATUS[problem.status] ?? "The server refused this.";

/** The same for what became of an image that was taken: `code` as in dead letters. */
export const reason = ({ code }) => BY_CODE[code] ?? `Failed: ${code}.`;

export const STATES = {
  waiting: "Waiting to be sent",
  uploading: "Uploading",
  queued: "Queued",
  processing: "Being looked at",
  completed: "Done",
  failed: "Failed",
  refused: "Not taken",
};

export const count = (number, one, many = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

export const milliseconds = (ms) => {
  if (ms === null || ms === undefined) return "–";
  if (ms >= 1_000) return `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;
  return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
};

export const seconds = (ms) => `${Math.max(1, Math.ceil(ms / 1000))} s`;

export const bytes = (size) => (size < 1e6 ? `${Math.max(1, Math.round(size / 1e3))} kB` : `${(size / 1e6).toFixed(1)} MB`);

export const clock = (at) => new Date(at).toLocaleTimeString("en-GB");

/** Labels with how often each was found: `2 qr, 1 linear`. */
export function tally(detections) {
  const found = new Map();
  for (const { label } of detections) found.set(label, (found.get(label) ?? 0) + 1);
  return [...found].sort((a, b) => b[1] - a[1]).map(([label, times]) => `${times} ${label}`).join(", ") || "nothing found";
}
