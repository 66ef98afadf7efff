// Building the page out of nodes. Texts become text nodes and nothing is ever parsed as HTML, so what a model or a
// person writes cannot be more than text.

const SVG = "http://www.w3.org/2000/svg";

/** An element: `on…` properties are listeners, others attributes (true: present, false and null: absent). */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

/** One of the symbols of index.html. It says nothing to screen readers; what it is on must have a name. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

/** A button that shows only a symbol. */
export function iconButton(name, label, onclick, properties = {}) {
  return make("button", { type: "button", class: "icon-button", "aria-label": label, title: label, onclick, ...properties },
    icon(name));
}

/** A button that copies what `text()` gives, and says so for a moment. */
export function copyButton(label, text) {
  const button = iconButton("copy", label, async () => {
    if (await copied(text())) flash(button, "check", "Copied");
    else flash(button, "alert", "The browser does not allow copying here");
  });
  return button;
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Pages that come without TLS from another machine have no clipboard, but may still copy what is selected.
    const field = make("textarea", { class: "unseen" });
    const before = document.activeElement;
    field.value = text;
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    before?.focus();
    return done;
  }
}

function flash(button, name, label) {
  const before = [button.getAttribute("aria-label"), "copy"];
  button.replaceChildren(icon(name));
  button.setAttribute("aria-label", label);
  say(label);
  setTimeout(() => {
    button.setAttribute("aria-label", before[0]);
    button.replaceChildren(icon(before[1]));
  }, 1500);
}

/** Tell screen readers. */
export function say(text) {
  document.getElementById("status").textContent = text;
}

export const byId = (id) => document.getElementById(id);
