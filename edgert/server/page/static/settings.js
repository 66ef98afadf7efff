// The settings dialog, and what settings are in a request. What is left empty is the model's own.

import { byId } from "./dom.js";
import { saveSettings } from "./store.js";

const NUMBERS = ["temperature", "top_p", "top_k", "min_p", "max_tokens", "seed"];
const FIELDS = ["system", "reasoning", "tools", ...NUMBERS];

/** The fields of a request; an Error says what is wrong with a setting. */
export function requestFields(settings) {
  const fields = { stream: true, stream_options: { include_usage: true } };
  for (const name of NUMBERS) if (settings[name] !== "") fields[name] = Number(settings[name]);
  if (settings.reasoning === "on" || settings.reasoning === "off") {
    fields.chat_template_kwargs = { enable_thinking: settings.reasoning === "on" };
  } else if (settings.reasoning) fields.reasoning_effort = settings.reasoning;
  const tools = toolsOf(settings.tools);
  if (tools.length) fields.tools = tools;
  return fields;
}

function toolsOf(text) {
  if (!text.trim()) return [];
  let tools;
  try {
    tools = JSON.parse(text);
  } catch (error) {
    throw new Error(`The tools in the settings are not JSON: ${error.message}`);
  }
  if (!Array.isArray(tools)) throw new Error("The tools in the settings must be a JSON array.");
  return tools;
}

/** Let the dialog edit `settings`; each change is kept at once. */
export function bindSettings(settings) {
  const dialog = byId("settings");
  for (const name of FIELDS) {
    const field = byId(`set-${name}`);
    field.value = settings[name];
    field.addEventListener("input", () => {
      if (!field.checkValidity()) return;
      settings[name] = field.value;
      saveSettings(settings);
    });
  }
  const tools = byId("set-tools");
  const check = () => {
    let problem = "";
    try {
      toolsOf(tools.value);
    } catch (error) {
      problem = error.message;
    }
    byId("tools-problem").textContent = problem;
    tools.setAttribute("aria-invalid", problem !== "");
  };
  tools.addEventListener("change", check);
  byId("reset").addEventListener("click", () => {
    for (const name of FIELDS) byId(`set-${name}`).value = settings[name] = "";
    saveSettings(settings);
    check();
  });
  byId("open-settings").addEventListener("click", () => dialog.showModal());
  closable(dialog);
}

/** A dialog's buttons of the class `close` close it, and so does a click beside it. */
export function closable(dialog) {
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog || event.target.closest(".close")) dialog.close();
  });
}

/** The switch between the system's theme, light and dark. */
export function bindTheme(settings) {
  const button = byId("theme");
  const next = { auto: "light", light: "dark", dark: "auto" };
  const apply = () => {
    document.documentElement.dataset.theme = settings.theme;
    const label = `Theme: ${settings.theme === "auto" ? "as the system's" : settings.theme}`;
    button.title = label;
    button.setAttribute("aria-label", label);
  };
  button.addEventListener("click", () => {
    settings.theme = next[settings.theme] ?? "auto";
    saveSettings(settings);
    apply();
  });
  apply();
}
