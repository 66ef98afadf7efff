// The page's beginning: which view is shown, the model, the key.

import { ApiError, getJson, key } from "./api.js";
import { Chat } from "./chat.js";
import { byId, make } from "./dom.js";
import { List } from "./list.js";
import { Live } from "./live.js";
import { bindSettings, bindTheme, closable } from "./settings.js";
import { loadSettings, newConversation, saveSettings } from "./store.js";

const settings = loadSettings();
const models = byId("model");
const keyDialog = byId("key-dialog");

bindTheme(settings);
bindSettings(settings);
closable(byId("help"));
byId("open-help").addEventListener("click", () => byId("help").showModal());

const chat = new Chat({
  settings: () => settings,
  model: () => models.value,
  changed: (conversation) => {
    list.current = conversation.id === chat.conversation.id ? conversation.id : list.current;
    list.refresh();
  },
  denied: askForKey,
});
const list = new List({
  opened: (conversation) => {
    location.hash = "";
    chat.open(conversation);
  },
  deleted: (id) => chat.forget(id),
});
const live = new Live({ model: () => models.value, denied: askForKey });

models.addEventListener("change", () => {
  settings.model = models.value;
  saveSettings(settings);
  live.wake();
});
byId("open-list").addEventListener("click", () => {
  const open = document.body.classList.toggle("listing");
  byId("open-list").setAttribute("aria-expanded", open);
  if (open) byId("new-chat").focus();
});
byId("curtain").addEventListener("click", () => document.body.classList.remove("listing"));
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") document.body.classList.remove("listing");
});

for (const example of document.querySelectorAll(".example")) {
  example.addEventListener("click", () => {
    byId("prompt").value = example.textContent;
    chat.send();
  });
}

keyDialog.addEventListener("submit", (event) => {
  event.preventDefault();
  key.set(byId("key").value.trim());
  byId("key").value = "";
  keyDialog.close();
  loadModels();
});

function askForKey() {
  byId("key-problem").textContent = key.get() ? "The server does not accept this key." : "";
  if (!keyDialog.open) keyDialog.showModal();
}

async function loadModels() {
  try {
    const { data } = await getJson("v1/models");
    models.replaceChildren(...data.map(({ id }) => make("option", { value: id, selected: id === settings.model }, id)));
    models.disabled = data.length < 2;
    byId("notice").hidden = true;
    route();
  } catch (error) {
    if (error.status === 401) askForKey();
    else if (error instanceof ApiError) {
      byId("notice").hidden = false;
      byId("notice-text").textContent = error.message;
    } else throw error;
  }
}
byId("notice-retry").addEventListener("click", loadModels);

function route() {
  const view = location.hash === "#live" ? "live" : "chat";
  for (const name of ["chat", "live"]) {
    byId(name).hidden = name !== view;
    byId(`to-${name}`).toggleAttribute("aria-current", name === view);
    if (name === view) byId(`to-${name}`).setAttribute("aria-current", "page");
  }
  document.title = view === "live" ? "Live · edgert" : "edgert";
  live.show(view === "live" && models.value !== "");
  document.body.classList.remove("listing");
}
window.addEventListener("hashchange", route);

chat.open(newConversation());
route();
loadModels();
