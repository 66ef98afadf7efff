// What the browser keeps: settings, and each conversation under a key of its own.

const SETTINGS = "edgert.settings";
const CONVERSATION = "edgert.conversation.";
const FORMAT = "edgert-conversations";
const ROLES = ["user", "assistant", "tool"];

export const DEFAULTS = {
  theme: "auto", model: "", system: "", temperature: "", top_p: "", top_k: "", min_p: "", max_tokens: "", seed: "",
  reasoning: "", tools: "",
};

export function loadSettings() {
  try {
    return { ...DEFAULTS, ...JSON.parse(localStorage.getItem(SETTINGS)) };
  } catch {
    return { ...DEFAULTS };
  }
}

export function saveSettings(settings) {
  localStorage.setItem(SETTINGS, JSON.stringify(settings));
}

/** All conversations, the latest first. */
export function loadConversations() {
  const found = [];
  for (const key of Object.keys(localStorage)) {
    if (!key.startsWith(CONVERSATION)) continue;
    try {
      found.push(checked(JSON.parse(localStorage.getItem(key))));
    } catch {
      // Not ours, or of another version: it is left alone, and not shown.
    }
  }
  return found.sort((a, b) => b.updated - a.updated);
}

export function newConversation() {
  // Not randomUUID, which pages that come without TLS from another machine do not have.
  const id = crypto.getRandomValues(new Uint32Array(4)).join("-");
  return { id, title: "New chat", updated: Date.now(), messages: [] };
}

/** Throws where the browser has no room left. */
export function saveConversation(conversation) {
  localStorage.setItem(CONVERSATION + conversation.id, JSON.stringify(conversation));
}

export function deleteConversation(id) {
  localStorage.removeItem(CONVERSATION + id);
}

export function exported() {
  return JSON.stringify({ format: FORMAT, version: 1, conversations: loadConversations() }, null, 1);
}

/** Adds the conversations of an exported text; how many. Throws an Error that says why it is none. */
export function imported(text) {
  let data;
  try {
    data = JSON.parse(text);
  } catch {
    throw new Error("This file is not JSON.");
  }
  if (data?.format !== FORMAT || data.version !== 1 || !Array.isArray(data.conversations)) {
    throw new Error("This file does not hold conversations that were exported here.");
  }
  const conversations = data.conversations.map(checked);
  conversations.forEach(saveConversation);
  return conversations.length;
}

function checked(conversation) {
  const { id, title, updated, messages } = conversation;
  const fine = typeof id === "string" && typeof title === "string" && Number.isFinite(updated) &&
    Array.isArray(messages) && messages.every((message) => ROLES.includes(message.role) &&
      ["content", "reasoning", "error"].every((name) => ["string", "undefined"].includes(typeof message[name])) &&
      (message.calls ?? []).every((call) => typeof call.name === "string" && typeof call.arguments === "string"));
  if (!fine) throw new Error("One of the conversations is damaged.");
  return conversation;
}
