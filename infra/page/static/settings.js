// The settings dialog: the API key, which stays in this tab, and the appearance, which this browser remembers.

import { byId } from "./dom.js";

const LOOK = "sightstream.look";

export function useSettings(api) {
  const dialog = byId("settings");
  const [key, look] = [byId("key"), byId("look")];

  const dress = () => {
    document.documentElement.dataset.look = localStorage.getItem(LOOK) ?? "";
  };
  const open = () => {
    key.value = api.key;
    look.value = localStorage.getItem(LOOK) ?? "";
    dialog.returnValue = "";
    dialog.showModal();
  };
  dialog.addEventListener("close", () => {
    if (dialog.returnValue === "save") {
      localStorage.setItem(LOOK, look.value);
      dress();
      if (key.value.trim() !== api.key) api.key = key.value.trim();
    }
    key.value = "";
  });
  byId("open-settings").addEventListener("click", open);
  dress();
  return open;
}
