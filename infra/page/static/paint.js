// Boxes on a canvas.

/** Bright enough for photographs, apart from each other in hue and lightness; dark outlines carry them on bright ground. */
const COLOURS = [
  ...["#35c2ff", "#ffb52e", "#79dd92", "#ff7a93", "#bd9bff", "#f5e556"],
  ...["#ff9457", "#4fd6c8", "#e58bff", "#a5d83f", "#83b2ff", "#ff6e62"],
];
const DARK = "rgb(10 12 14 / 80%)";
const TEXT = "#0b0d0f";
const FADED = 0.3;
const FONT = "Inter, system-ui, sans-serif"; // as base.css has it

export const colourOf = (classId) => COLOURS[((classId % COLOURS.length) + COLOURS.length) % COLOURS.length];

/** Draws detections, whose boxes are in pixels of the picture, with `scale` canvas pixels for each of those. */
export function paintBoxes(context, detections, { scale, unit, chosen = null, tags = true }) {
  // The best last, so that they lie on top.
  for (const found of [...detections].sort((a, b) => a.score - b.score)) {
    context.globalAlpha = chosen && chosen !== found ? FADED : 1;
    paintBox(context, found, scale, unit, found === chosen);
    if (tags) paintTag(context, found, scale, unit);
  }
  context.globalAlpha = 1;
}

function paintBox(context, { box, class_id: classId }, scale, unit, strong) {
  const [x1, y1, x2, y2] = box.map((edge) => Math.round(edge * scale)); // crisp lines
  const width = (strong ? 3 : 2) * unit;
  for (const [colour, line] of [[DARK, width + 2 * unit], [colourOf(classId), width]]) {
    context.strokeStyle = colour;
    context.lineWidth = line;
    context.strokeRect(x1, y1, x2 - x1, y2 - y1);
  }
}

function paintTag(context, { box, label, score, class_id: classId }, scale, unit) {
  const text = `${label} ${score.toFixed(2)}`;
  context.font = `600 ${11 * unit}px ${FONT}`;
  const width = context.measureText(text).width + 8 * unit;
  const height = 16 * unit;
  const left = Math.max(0, Math.min(box[0] * scale - unit, context.canvas.width - width));
  const above = box[1] * scale - height - unit;
  const top = above >= 0 ? above : Math.max(0, box[1] * scale + unit);
  context.fillStyle = colourOf(classId);
  context.fillRect(left, top, width, height);
  context.fillStyle = TEXT;
  context.textBaseline = "middle";
  context.fillText(text, left + 4 * unit, top + height / 2 + 0.5 * unit);
}
