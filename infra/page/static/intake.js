// Files come in by choosing, dropping and pasting.

import { byId } from "./dom.js";

/** Calls `take(files)` whenever somebody gives files, wherever on the page they drop or paste them. */
export function takeFiles(take) {
  const input = byId("files");
  const drop = byId("drop");
  const give = (files) => files?.length && take([...files]);

  byId("choose").addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    give(input.files);
    input.value = ""; // the same file may be chosen again
  });

  document.addEventListener("paste", ({ clipboardData, target }) => {
    if (!target.matches?.("input, textarea")) give(clipboardData.files);
  });

  // Leaving a child is no leaving of the page: what counts is whether a drag is over anything of it.
  let over = 0;
  const show = () => drop.classList.toggle("over", over > 0);
  document.addEventListener("dragenter", (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    over++;
    show();
  });
  document.addEventListener("dragleave", () => {
    over = Math.max(0, over - 1);
    show();
  });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    over = 0;
    show();
    give(event.dataTransfer.files);
  });
}
