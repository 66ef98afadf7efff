// One message of a conversation as an element.

import { copyButton, icon, iconButton, make } from "./dom.js";
import { show } from "./markdown.js";

/** How a message looks. `actions` are functions of the chat; `last` says whether it is the newest. */
export function messageView(message, actions, last) {
  if (message.role === "user") return userView(message, actions);
  if (message.role === "tool") return toolView(message);
  return assistantView(message, actions, last).element;
}

function userView(message, actions) {
  const element = make("article", { class: "message user", "aria-label": "You" });
  const shown = () => {
    const tools = make("div", { class: "actions" },
      copyButton("Copy message", () => message.content),
      iconButton("edit", "Edit and ask again", edit));
    element.replaceChildren(make("div", { class: "bubble" }, message.content), tools);
  };
  const edit = () => {
    const field = make("textarea", { "aria-label": "Edit your message", rows: 3 });
    field.value = message.content;
    const save = () => field.value.trim() && actions.edit(message, field.value);
    const cancel = () => {
      shown();
      element.querySelector("[title='Edit and ask again']").focus();
    };
    field.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        event.stopPropagation();
        cancel();
      } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        save();
      }
    });
    element.replaceChildren(make("div", { class: "editor" }, field, make("div", { class: "editor-buttons" },
      make("button", { type: "button", class: "quiet", onclick: cancel }, "Cancel"),
      make("button", { type: "button", class: "primary", onclick: save }, "Ask again"))));
    field.focus();
    field.setSelectionRange(field.value.length, field.value.length);
  };
  shown();
  return element;
}

function toolView(message) {
  return make("article", { class: "message tool", "aria-label": "Result of a tool" },
    make("details", { class: "fold" }, make("summary", {}, icon("tool"), `Result of ${message.name}`),
      make("pre", { tabindex: 0, role: "region", "aria-label": "Result" }, message.content)));
}

/** An answer, with an `update` that shows what it has become. */
export function assistantView(message, actions, last) {
  const text = make("div", { class: "markdown" });
  const reasoning = make("div", { class: "markdown" });
  const summary = make("summary", {}, icon("thought"), make("span", {}, "Reasoning"));
  const fold = make("details", { class: "fold reasoning", hidden: true }, summary, reasoning);
  const calls = make("div", { class: "calls" });
  const waiting = make("p", { class: "waiting", role: "img", "aria-label": "Waiting for the answer" },
    make("span"), make("span"), make("span"));
  const foot = make("footer", { class: "foot" });
  const element = make("article", { class: "message assistant", "aria-label": "Answer" }, fold, text, calls, waiting, foot);
  function update() {
    const answering = message.answering === true;
    element.setAttribute("aria-busy", answering);
    element.classList.toggle("answering", answering);
    fold.hidden = !message.reasoning;
    if (message.reasoning) show(reasoning, message.reasoning);
    summary.lastChild.textContent = answering && !message.content ? "Reasoning …" : "Reasoning";
    show(text, message.content ?? "");
    const called = message.calls ?? [];
    calls.replaceChildren(...called.map(callView));
    waiting.hidden = !answering || Boolean(message.content || message.reasoning || called.length);
    if (answering) foot.replaceChildren();
    else finish();
  }

  function finish() {
    const parts = [copyButton("Copy answer", () => message.content ?? "")];
    if (last) parts.push(iconButton("again", "Answer again", () => actions.again()));
    const figures = figuresOf(message);
    foot.replaceChildren(...parts, make("span", { class: "figures", title: figures.full }, figures.short));
    if (message.error) foot.before(errorView(message, actions, last));
    if (last && message.calls?.length && !message.error) foot.before(resultsForm(message, actions));
  }

  update();
  return { element, update };
}

function callView(call) {
  let shown = call.arguments;
  try {
    shown = JSON.stringify(JSON.parse(call.arguments), null, 2);
  } catch {
    // Still being written.
  }
  return make("details", { class: "fold call", open: true },
    make("summary", {}, icon("tool"), make("span", {}, "Calls "), make("code", {}, call.name)),
    make("pre", { tabindex: 0, role: "region", "aria-label": `Arguments of ${call.name}` }, shown));
}

function errorView(message, actions, last) {
  return make("div", { class: "error", role: "alert" }, icon("alert"), make("p", {}, message.error),
    last ? make("button", { type: "button", class: "quiet", onclick: () => actions.again() }, "Try again") : null);
}

/** Asks for what the tools that were called gave. */
function resultsForm(message, actions) {
  const fields = message.calls.map((call) => make("textarea", { rows: 2, required: true, "aria-label": `Result of ${call.name}`,
    placeholder: `What ${call.name} returns` }));
  const submit = (event) => {
    event.preventDefault();
    actions.results(message, fields.map((field) => field.value));
  };
  return make("form", { class: "results", onsubmit: submit }, ...fields,
    make("button", { type: "submit", class: "primary" }, "Send results"));
}

/** Seconds. Pieces that came closer together were read at once, and tell nothing of the speed. */
const SHORTEST = 0.005;

/** What an answer cost: tokens, speed, time to the first token. */
function figuresOf({ usage, seconds, finish }) {
  const short = [];
  const full = [];
  if (finish === "length") short.push("stopped at the limit");
  if (finish === "stopped") short.push("stopped");
  if (usage) {
    const cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
    short.push(`${usage.completion_tokens} tokens`);
    full.push(`prompt ${usage.prompt_tokens} tokens, ${cached} of them from the cache`);
    if (seconds?.decode >= SHORTEST && usage.completion_tokens > 1) {
      const speed = (usage.completion_tokens - 1) / seconds.decode;
      short.push(`${speed.toFixed(speed < 100 ? 1 : 0)} tokens/s`);
    }
  }
  if (seconds?.first != null) {
    short.push(`first after ${seconds.first < 1 ? `${Math.round(seconds.first * 1000)} ms` : `${seconds.first.toFixed(1)} s`}`);
  }
  return { short: short.join(" · "), full: full.join("; ") };
}
