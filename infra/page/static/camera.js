// Pictures from the camera, in a dialog. The camera is on only while the dialog is open.

import { byId } from "./dom.js";

const QUALITY = 0.9;

const REASONS = {
  NotAllowedError: "The browser does not let this page use the camera. Its settings for this site can allow it.",
  NotFoundError: "There is no camera.",
  NotReadableError: "Another program is using the camera.",
};

/** Calls `take([file])` for each picture taken. */
export function useCamera(take) {
  const dialog = byId("camera");
  const video = byId("viewfinder");
  const words = byId("camera-words");
  const shoot = byId("shoot");
  let taken = 0;

  async function open() {
    taken = 0;
    shoot.disabled = true;
    words.textContent = "Waiting for the camera.";
    dialog.showModal();
    try {
      if (!navigator.mediaDevices) throw new Error("insecure");
      const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1920 } } });
      if (!dialog.open) {
        stop(stream);
        return;
      }
      video.srcObject = stream;
      await video.play();
      words.textContent = "";
      shoot.disabled = false;
      shoot.focus();
    } catch (error) {
      words.textContent = REASONS[error.name] ?? "Browsers allow the camera only on https pages and on this machine itself.";
    }
  }

  function snap() {
    const canvas = document.createElement("canvas");
    canvas.width = video.videoWidth;
    canvas.height = video.videoHeight;
    canvas.getContext("2d").drawImage(video, 0, 0);
    canvas.toBlob((blob) => {
      take([new File([blob], `camera ${new Date().toTimeString().slice(0, 8)}.jpg`, { type: "image/jpeg" })]);
      words.textContent = ++taken === 1 ? "Taken, and sent." : `${taken} pictures taken, and sent.`;
    }, "image/jpeg", QUALITY);
  }

  const stop = (stream) => stream?.getTracks().forEach((track) => track.stop());

  byId("open-camera").addEventListener("click", open);
  byId("close-camera").addEventListener("click", () => dialog.close());
  shoot.addEventListener("click", snap);
  dialog.addEventListener("close", () => {
    stop(video.srcObject);
    video.srcObject = null;
  });
}
