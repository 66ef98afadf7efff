// The list of conversations beside the chat.

import { byId, iconButton, make, say } from "./dom.js";
import { deleteConversation, exported, imported, loadConversations, newConversation } from "./store.js";

export class List {
  /** `opened` is called with the conversation that is chosen, `deleted` with the id of one that is gone. */
  constructor({ opened, deleted }) {
    Object.assign(this, { opened, deleted });
    this.current = null;
    byId("new-chat").addEventListener("click", () => this.open(newConversation()));
    byId("export").addEventListener("click", download);
    byId("import").addEventListener("click", () => byId("import-file").click());
    byId("import-file").addEventListener("change", (event) => this.#import(event.target));
    window.addEventListener("storage", () => this.refresh()); // another tab's
    this.refresh();
  }

  open(conversation) {
    this.current = conversation.id;
    document.body.classList.remove("listing");
    this.opened(conversation);
    this.refresh();
  }

  refresh() {
    const conversations = loadConversations();
    byId("conversations").replaceChildren(...conversations.map((conversation) => {
      const open = make("button", {
        type: "button", class: "conversation", title: conversation.title,
        "aria-current": conversation.id === this.current ? "true" : null, onclick: () => this.open(conversation),
      }, conversation.title);
      const remove = iconButton("trash", `Delete “${conversation.title}”`, () => this.#delete(conversation));
      return make("li", {}, open, remove);
    }));
    byId("export").disabled = !conversations.length;
  }

  #delete(conversation) {
    if (!confirm(`Delete “${conversation.title}”? It is kept in this browser only.`)) return;
    deleteConversation(conversation.id);
    this.deleted(conversation.id);
    if (conversation.id === this.current) this.open(newConversation());
    else this.refresh();
    byId("new-chat").focus();
  }

  async #import(input) {
    const [file] = input.files;
    input.value = "";
    if (!file) return;
    try {
      const count = imported(await file.text());
      say(`${count} conversations imported`);
    } catch (error) {
      alert(error.message);
    }
    this.refresh();
  }
}

function download() {
  const address = URL.createObjectURL(new Blob([exported()], { type: "application/json" }));
  make("a", { href: address, download: "conversations.json" }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}
