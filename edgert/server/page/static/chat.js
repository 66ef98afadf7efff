// The conversation that is open: what has been said, what is being said, and what can be done about it.

import { streamJson } from "./api.js";
import { byId, say } from "./dom.js";
import { assistantView, messageView } from "./message.js";
import { requestFields } from "./settings.js";
import { newConversation, saveConversation } from "./store.js";

const TITLE_LENGTH = 60;
const NEAR_END = 80; // pixels: who is this near to the end of the log stays there when it grows

export class Chat {
  /** `settings()` are the present ones; `changed` is called with a conversation that must be listed anew, `denied`
   * when the server wants a key. */
  constructor({ settings, model, changed, denied }) {
    Object.assign(this, { settings, model, changed, denied });
    this.log = byId("log");
    this.field = byId("prompt");
    this.conversation = newConversation();
    this.answering = null;
    this.actions = {
      edit: (message, content) => this.edit(message, content),
      again: () => this.again(),
      results: (message, texts) => this.results(message, texts),
    };
    byId("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.answering) this.stop();
      else this.send();
    });
    this.field.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        if (!this.answering) this.send();
      }
    });
    this.field.addEventListener("input", () => this.#fit());
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !document.querySelector("dialog[open]")) this.stop();
    });
  }

  open(conversation) {
    this.stop();
    this.conversation = conversation;
    this.#render();
    this.log.scrollTop = this.log.scrollHeight;
    this.field.focus();
  }

  /** A conversation is deleted: if its answer is still being written, that is not kept. */
  forget(id) {
    if (this.conversation.id === id) this.conversation.forgotten = true;
  }

  send() {
    const content = this.field.value.trim();
    if (!content) return;
    this.field.value = "";
    this.#fit();
    const { conversation } = this;
    if (!conversation.messages.length) conversation.title = titleOf(content);
    this.#ask({ role: "user", content });
  }

  stop() {
    this.answering?.abort();
  }

  /** Say something else in place of a message, and drop what came after it. */
  edit(message, content) {
    this.stop();
    const { messages } = this.conversation;
    messages.length = messages.indexOf(message);
    if (!messages.length) this.conversation.title = titleOf(content);
    this.#ask({ role: "user", content });
  }

  /** Another answer in place of the last one. */
  again() {
    this.stop();
    const { messages } = this.conversation;
    if (messages.at(-1)?.role === "assistant") messages.pop();
    this.#ask();
  }

  results(message, texts) {
    const results = message.calls.map((call, i) => ({ role: "tool", call_id: call.id, name: call.name, content: texts[i] }));
    this.#ask(...results);
  }

  /** Add messages, and answer. */
  async #ask(...added) {
    const { conversation } = this;
    conversation.messages.push(...added);
    const body = { model: this.model(), messages: requestMessages(conversation.messages, this.settings().system) };
    const message = { role: "assistant", content: "", answering: true };
    conversation.messages.push(message);
    const view = this.#render();
    this.log.scrollTop = this.log.scrollHeight;
    const controller = new AbortController();
    this.#busy(controller);
    say("Answering");
    try {
      Object.assign(body, requestFields(this.settings()));
      await this.#receive(message, body, controller.signal, view);
    } catch (error) {
      if (error.name === "AbortError") message.finish = "stopped";
      else message.error = error.message;
      if (error.status === 401) this.denied();
    }
    delete message.answering;
    conversation.updated = Date.now();
    this.#save(conversation, message);
    if (this.answering === controller) {
      this.#busy(null);
      view.update();
      this.#follow();
    }
    say(message.error ? "" : "The answer is complete");
  }

  async #receive(message, body, signal, view) {
    const began = performance.now();
    let first = null;
    let last = null;
    let due = 0;
    const draw = () => {
      due = 0;
      const follow = this.#atEnd();
      view.update();
      if (follow) this.#follow();
    };
    try {
      for await (const item of streamJson("v1/chat/completions", body, signal)) {
        if (item.usage) message.usage = item.usage;
        const [choice] = item.choices;
        if (!choice) continue;
        if (choice.finish_reason) message.finish = choice.finish_reason;
        if (!take(message, choice.delta)) continue;
        last = performance.now();
        first ??= last;
        due ||= requestAnimationFrame(draw);
      }
    } finally {
      cancelAnimationFrame(due);
      if (first !== null) message.seconds = { first: (first - began) / 1000, decode: (last - first) / 1000 };
    }
  }

  #save(conversation, message) {
    if (conversation.forgotten) return;
    try {
      saveConversation(conversation);
    } catch {
      message.error ??= "The browser has no room left to keep this conversation: export or delete others.";
    }
    this.changed(conversation);
  }

  /** Show all messages; the view of the last, if it is an answer. */
  #render() {
    const { messages } = this.conversation;
    const views = messages.map((message, i) => messageView(message, this.actions, i === messages.length - 1));
    const newest = messages.at(-1);
    let view = null;
    if (newest?.role === "assistant") {
      view = assistantView(newest, this.actions, true);
      views[views.length - 1] = view.element;
    }
    this.log.replaceChildren(...views);
    byId("welcome").hidden = messages.length > 0;
    return view;
  }

  #busy(controller) {
    this.answering = controller;
    byId("composer").classList.toggle("answering", controller !== null);
    const button = byId("send");
    const label = controller ? "Stop (Esc)" : "Send (Enter)";
    button.setAttribute("aria-label", label);
    button.title = label;
  }

  #atEnd() {
    return this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < NEAR_END;
  }

  #follow() {
    if (this.#atEnd()) this.log.scrollTop = this.log.scrollHeight;
  }

  #fit() {
    this.field.style.height = "auto";
    this.field.style.height = `${this.field.scrollHeight}px`;
  }
}

function titleOf(content) {
  const line = content.split("\n")[0];
  return line.length > TITLE_LENGTH ? `${line.slice(0, TITLE_LENGTH - 1)}…` : line;
}

/** Adds a delta to a message; whether it held anything. */
function take(message, delta) {
  let any = false;
  if (delta.content) {
    message.content += delta.content;
    any = true;
  }
  if (delta.reasoning_content) {
    message.reasoning = (message.reasoning ?? "") + delta.reasoning_content;
    any = true;
  }
  for (const part of delta.tool_calls ?? []) {
    message.calls ??= [];
    const call = (message.calls[part.index] ??= { id: part.id, name: "", arguments: "" });
    call.name ||= part.function.name ?? "";
    call.arguments += part.function.arguments ?? "";
    any = true;
  }
  return any;
}

/** Messages as the API takes them; answers that failed before they began are left out. */
function requestMessages(messages, system) {
  const made = system.trim() ? [{ role: "system", content: system }] : [];
  for (const message of messages) {
    if (message.role === "user") made.push({ role: "user", content: message.content });
    else if (message.role === "tool") {
      made.push({ role: "tool", tool_call_id: message.call_id, name: message.name, content: message.content });
    } else if (message.content || message.reasoning || message.calls) {
      const calls = message.calls?.map(({ id, name, arguments: text }) => (
        { id, type: "function", function: { name, arguments: text } }));
      made.push({ role: "assistant", content: message.content, reasoning_content: message.reasoning, tool_calls: calls });
    }
  }
  return made;
}
