// Markdown as nodes: what models write, after CommonMark and GitHub's tables (https://spec.commonmark.org,
// https://github.github.com/gfm). HTML is shown as text, images as links, and links lead only to web pages and mail.
//
// A text is cut into blocks by its lines, so that while an answer grows only its last block is made anew.

import { copyButton, make } from "./dom.js";

const DEEPEST = 8; // quotes and lists within each other; what is deeper stays text
const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)(?:\s+#+)?\s*$/;
const RULE = /^ {0,3}(?:(?:\*\s*){3,}|(?:-\s*){3,}|(?:_\s*){3,})$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])(\s+|$)/;
const DIVIDER = /^ {0,3}\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$/;
const BLANK = /^\s*$/;

/** Let `element` show a text; blocks that it shows already are left as they are. */
export function show(element, text) {
  const blocks = cut(text.split(/\r?\n/), 0);
  const kept = element.blocks ?? [];
  let same = 0;
  while (same < blocks.length && same < kept.length && blocks[same].source === kept[same]) same++;
  while (element.childNodes.length > same) element.lastChild.remove();
  for (const block of blocks.slice(same)) element.append(block.node());
  element.blocks = blocks.map((block) => block.source);
}

/** The blocks of some lines: what each was made from, and a function that makes its node. */
function cut(lines, depth) {
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (BLANK.test(lines[at])) {
      at++;
      continue;
    }
    const reader = [fence, heading, rule, quote, list, table].find((read) => read.test(lines, at, depth));
    const [end, node] = (reader ?? paragraph).read(lines, at, depth);
    blocks.push({ source: `${depth} ${lines.slice(at, end).join("\n")}`, node });
    at = end;
  }
  return blocks;
}

const nodesOf = (lines, depth) => cut(lines, depth).map((block) => block.node());

const fence = {
  test: (lines, at) => FENCE.test(lines[at]),
  read(lines, at) {
    const [, mark, language] = lines[at].match(FENCE);
    const indent = lines[at].search(/\S/);
    let end = at + 1;
    const closes = (line) => line.trim().startsWith(mark) && line.trim().replaceAll(mark[0], "") === "";
    while (end < lines.length && !closes(lines[end])) end++;
    const strip = new RegExp(`^ {0,${indent}}`);
    const code = lines.slice(at + 1, end).map((line) => line.replace(strip, "")).join("\n");
    return [Math.min(end + 1, lines.length), () => codeBlock(code, language.trim().split(/\s/)[0])];
  },
};

function codeBlock(code, language) {
  const head = make("div", { class: "code-head" }, make("span", {}, language || "text"), copyButton("Copy code", () => code));
  // A region that scrolls must be reachable from the keyboard.
  const body = make("pre", { tabindex: 0, role: "region", "aria-label": "Code" }, make("code", {}, code));
  return make("div", { class: "code" }, head, body);
}

const heading = {
  test: (lines, at) => HEADING.test(lines[at]),
  read(lines, at) {
    const [, marks, text] = lines[at].match(HEADING);
    // The page's own title is the first level.
    return [at + 1, () => make(`h${Math.min(marks.length + 1, 6)}`, {}, ...inline(text))];
  },
};

const rule = {
  test: (lines, at) => RULE.test(lines[at]),
  read: (lines, at) => [at + 1, () => make("hr")],
};

const quote = {
  test: (lines, at, depth) => depth < DEEPEST && QUOTE.test(lines[at]),
  read(lines, at, depth) {
    let end = at + 1;
    while (end < lines.length && (QUOTE.test(lines[end]) || !(BLANK.test(lines[end]) || starts(lines, end)))) end++;
    const inner = lines.slice(at, end).map((line) => line.replace(QUOTE, ""));
    return [end, () => make("blockquote", {}, ...nodesOf(inner, depth + 1))];
  },
};

const list = {
  test: (lines, at, depth) => depth < DEEPEST && ITEM.test(lines[at]),
  read(lines, at, depth) {
    const first = lines[at].match(ITEM)[2];
    const ordered = /\d/.test(first);
    const alike = (line) => {
      const match = line.match(ITEM);
      return match && match[2].at(-1) === first.at(-1) && !RULE.test(line);
    };
    const items = [];
    let loose = false;
    let end = at;
    while (end < lines.length && alike(lines[end])) {
      const [mark] = lines[end].match(ITEM);
      const indent = mark.trimEnd().length + 1;
      const item = [lines[end].slice(mark.length)];
      end++;
      while (end < lines.length) {
        const line = lines[end];
        const inner = line.search(/\S/) >= indent || (line.search(/\S/) >= 2 && ITEM.test(line.trimStart()));
        const blank = BLANK.test(line);
        const next = lines[end + 1];
        const goesOn = blank ? next !== undefined && next.search(/\S/) >= Math.min(indent, 2) :
          inner || !(BLANK.test(lines[end - 1]) || starts(lines, end));
        if (!goesOn) break;
        item.push(line.replace(new RegExp(`^ {0,${indent}}`), ""));
        end++;
      }
      items.push(item);
      if (end + 1 < lines.length && BLANK.test(lines[end]) && alike(lines[end + 1])) {
        loose = true;
        end++;
      }
    }
    const start = ordered && parseInt(first, 10) !== 1 ? parseInt(first, 10) : null;
    return [end, () => make(ordered ? "ol" : "ul", { start }, ...items.map((item) => listItem(item, depth, loose)))];
  },
};

function listItem(lines, depth, loose) {
  const task = lines[0].match(/^\[([ xX])\]\s+/);
  const inner = task ? [lines[0].slice(task[0].length), ...lines.slice(1)] : lines;
  const nodes = nodesOf(inner, depth + 1);
  // A tight item is its text, not a paragraph.
  if (!loose && nodes[0]?.tagName === "P") nodes.splice(0, 1, ...nodes[0].childNodes);
  const box = task && make("input", { type: "checkbox", disabled: true, checked: task[1] !== " ", "aria-label": "Done" });
  return make("li", {}, box, ...nodes);
}

const table = {
  test: (lines, at) => lines[at].includes("|") && DIVIDER.test(lines[at + 1] ?? "") &&
    cells(lines[at]).length === cells(lines[at + 1]).length,
  read(lines, at) {
    let end = at + 2;
    while (end < lines.length && lines[end].includes("|") && !BLANK.test(lines[end])) end++;
    const aligned = cells(lines[at + 1]).map((cell) => cell.endsWith(":") ? (cell.startsWith(":") ? "center" : "right") : null);
    const row = (tag, line) => {
      const found = cells(line);
      return make("tr", {}, ...aligned.map((side, i) => make(tag, { class: side }, ...inline(found[i] ?? ""))));
    };
    return [end, () => make("div", { class: "table", tabindex: 0, role: "region", "aria-label": "Table" }, make("table", {},
      make("thead", {}, row("th", lines[at])),
      make("tbody", {}, ...lines.slice(at + 2, end).map((line) => row("td", line)))))];
  },
};

function cells(line) {
  const inner = line.trim().replace(/^\|/, "").replace(/(?<!\\)\|$/, "");
  return inner.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

const paragraph = {
  read(lines, at) {
    let end = at + 1;
    while (end < lines.length && !BLANK.test(lines[end]) && !starts(lines, end)) end++;
    const text = lines.slice(at, end).map((line) => line.trimStart()).join("\n");
    return [end, () => make("p", {}, ...inline(text))];
  },
};

/** Whether a block other than a paragraph starts at this line. */
function starts(lines, at) {
  return [fence, heading, rule, quote, list, table].some((reader) => reader.test(lines, at, 0));
}

// Within a block.

const SPECIAL = /[\\`*_~[!<\n]|https?:\/\//g;
const WEB = /^https?:\/\/[^\s<>"]*[^\s<>"'.,:;!?)\]]/;
const ANGLE = /^<((?:https?:\/\/|mailto:)[^\s<>]+)>/;
const LINK = /^!?\[((?:[^\[\]\\]|\\.|\[[^\[\]]*\]){0,2000})\]\(\s*<?((?:[^\s<>()]|\([^\s<>()]*\)){0,2000})>?(?:\s+"[^"]{0,500}")?\s*\)/;
const WORD = /[\p{L}\p{N}]/u;

/** The nodes of a text: emphasis, code, links, line breaks. */
function inline(text, depth = 0) {
  const nodes = [];
  let plain = "";
  const missing = new Set(); // marks that do not close in what is left, so that nothing is searched for twice
  const add = (node) => {
    if (plain) nodes.push(plain);
    plain = "";
    nodes.push(node);
  };
  let at = 0;
  while (at < text.length) {
    SPECIAL.lastIndex = at;
    const next = SPECIAL.exec(text)?.index ?? text.length;
    plain += text.slice(at, next);
    at = next;
    if (at === text.length) break;
    const found = piece(text, at, depth, missing);
    if (found) {
      add(found.node);
      at = found.end;
    } else if (text[at] === "\\" && /[!-/:-@[-`{-~]/.test(text[at + 1] ?? "")) {
      plain += text[at + 1];
      at += 2;
    } else {
      const mark = text.slice(at).match(/^(?:`+|\*+|_+|~+|.|\n)/s)[0];
      plain += mark;
      at += mark.length;
    }
  }
  if (plain) nodes.push(plain);
  return nodes;
}

/** What begins at a place, and where it ends; null where it is only text. */
function piece(text, at, depth, missing) {
  const rest = () => text.slice(at, at + 5000);
  switch (text[at]) {
    case "\n": return { node: make("br"), end: at + 1 };
    case "`": return codeSpan(text, at, missing);
    case "*": case "_": case "~": return depth < DEEPEST ? emphasis(text, at, depth, missing) : null;
    case "<": {
      const match = rest().match(ANGLE);
      return match && { node: link(match[1], [match[1].replace(/^mailto:/, "")]), end: at + match[0].length };
    }
    case "!": case "[": {
      if (depth >= DEEPEST) return null;
      const match = rest().match(LINK);
      if (!match) return null;
      return { node: link(match[2], inline(match[1] || match[2], depth + 1)), end: at + match[0].length };
    }
    case "h": {
      const match = rest().match(WEB);
      return match && !WORD.test(text[at - 1] ?? "") ? { node: link(match[0], [match[0]]), end: at + match[0].length } : null;
    }
  }
  return null;
}

function codeSpan(text, at, missing) {
  const mark = text.slice(at).match(/^`+/)[0];
  if (missing.has(mark)) return null;
  const closing = new RegExp(`(?<!\`)${mark}(?!\`)`, "g");
  closing.lastIndex = at + mark.length;
  const end = closing.exec(text)?.index;
  if (end === undefined) {
    missing.add(mark);
    return null;
  }
  const code = text.slice(at + mark.length, end).replaceAll("\n", " ").replace(/^ (.*\S.*) $/, "$1");
  return { node: make("code", {}, code), end: end + mark.length };
}

const TAGS = { "*": "em", _: "em", "**": "strong", __: "strong", "~~": "del" };

function emphasis(text, at, depth, missing) {
  const run = text.slice(at, at + 4).match(/^(?:\*+|_+|~+)/)[0];
  const mark = run.length >= 2 ? run.slice(0, 2) : run;
  const tag = TAGS[mark];
  const inner = at + mark.length;
  if (!tag || missing.has(mark) || /^\s|^$/.test(text[inner] ?? "")) return null;
  if (mark[0] === "_" && WORD.test(text[at - 1] ?? "")) return null;
  let end = text.indexOf(mark, inner + 1);
  while (end !== -1) {
    const single = mark.length > 1 || (text[end + 1] !== mark && text[end - 1] !== mark);
    const closes = !/\s/.test(text[end - 1]) && text[end - 1] !== "\\" && single &&
      !(mark[0] === "_" && WORD.test(text[end + mark.length] ?? ""));
    if (closes) {
      while (text[end + mark.length] === mark[0] && mark.length > 1) end++; // ***both*** closes from within
      return { node: make(tag, {}, ...inline(text.slice(inner, end), depth + 1)), end: end + mark.length };
    }
    end = text.indexOf(mark, end + mark.length);
  }
  missing.add(mark);
  return null;
}

/** A link where the address is of the web or of mail; else only its text. */
function link(address, children) {
  let url;
  try {
    url = new URL(address);
  } catch {
    return make("span", {}, ...children);
  }
  if (!["http:", "https:", "mailto:"].includes(url.protocol)) return make("span", {}, ...children);
  return make("a", { href: url.href, target: "_blank", rel: "noopener noreferrer nofollow" }, ...children);
}
