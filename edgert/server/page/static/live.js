// The live view: what the machine is doing, asked for once a second while it is looked at.

import { getJson } from "./api.js";
import { byId, make } from "./dom.js";
import { HeatMap } from "./heatmap.js";

const EVERY = 1000; // milliseconds
const KEPT = 120; // samples in the curves

export class Live {
  /** `model()` is the one to look at; `denied` is called when the server wants a key. */
  constructor({ model, denied }) {
    Object.assign(this, { model, denied });
    this.shown = false;
    this.asking = false;
    this.timer = 0;
    this.before = null;
    this.looked = null; // the model that `before` is of
    this.generated = Array(KEPT).fill(0);
    this.prefilled = Array(KEPT).fill(0);
    this.heatMap = new HeatMap(byId("heat-map"), byId("heat-told"));
    document.addEventListener("visibilitychange", () => this.wake());
    for (const button of document.querySelectorAll("[name=heat]")) {
      button.addEventListener("change", () => this.heatMap.choose(button.value));
    }
  }

  show(shown) {
    this.shown = shown;
    this.wake();
  }

  /** Go on, or stop, as is right now. */
  wake() {
    clearTimeout(this.timer);
    if (!this.shown || document.hidden) this.before = null;
    else if (!this.asking) this.#ask();
  }

  async #ask() {
    const model = this.model();
    let now;
    this.asking = true;
    try {
      now = await getJson(`live?model=${encodeURIComponent(model)}`);
    } catch (error) {
      byId("live-problem").textContent = error.message;
      byId("live-problem").hidden = false;
      this.before = null;
      if (error.status === 401) {
        this.denied();
        return; // woken with the key
      }
    } finally {
      this.asking = false;
    }
    if (now) {
      const loaded = "seconds" in now;
      byId("live-problem").hidden = true;
      byId("live-loaded").hidden = !loaded;
      byId("live-unloaded").hidden = loaded;
      byId("live-machine").hidden = !loaded;
      if (this.looked !== model) this.before = null;
      this.looked = model;
      if (loaded) this.#draw(now);
      this.before = loaded ? now : null;
    }
    clearTimeout(this.timer);
    if (this.shown && !document.hidden) this.timer = setTimeout(() => this.#ask(), EVERY);
  }

  #draw(now) {
    const before = this.before ?? now;
    const span = now.seconds - before.seconds;
    const rate = (name) => (span > 0 ? Math.max(0, now[name] - before[name]) / span : 0);
    const text = (id, value) => { byId(id).textContent = value; };

    text("live-machine", `${now.backend}, ${now.threads} ${now.threads === 1 ? "thread" : "threads"}`);
    text("live-running", `${now.running}`);
    text("live-slots", `of ${now.slots} at a time`);
    text("live-waiting", `${now.waiting}`);
    text("live-queue", `${milliseconds(mean(now, before, "queue_seconds"))} in the queue`);

    const prefill = rate("prompt_tokens") - rate("cached_tokens"); // counted when requests begin
    curve(byId("curve-generated"), push(this.generated, rate("generated_tokens")));
    curve(byId("curve-prefilled"), push(this.prefilled, prefill));
    text("live-generated", rate("generated_tokens").toFixed(1));
    const guessed = now.guessed_tokens ? `, ${Math.round((100 * now.right_guesses) / now.guessed_tokens)} % of guesses right` : "";
    text("live-between", `${milliseconds(mean(now, before, "between_tokens_seconds"))} from token to token${guessed}`);
    text("live-prefilled", prefill.toFixed(1));
    text("live-first", `${milliseconds(mean(now, before, "first_token_seconds"))} to the first token`);

    text("live-hits", now.prompt_tokens ? `${Math.round((100 * now.cached_tokens) / now.prompt_tokens)} %` : "–");
    const disk = now.disk_bytes ? `, ${count(now.disk_tokens)} of them on disk` : "";
    text("live-cached", `${count(now.cached_tokens)} of ${count(now.prompt_tokens)} prompt tokens${disk}`);
    text("live-blocks", `${((100 * (now.blocks_held + now.blocks_cached)) / now.blocks).toFixed(1)} %`);
    text("live-held", `${count(now.blocks_held)} held, ${count(now.blocks_cached)} kept for prompts that begin alike, of ` +
      `${count(now.blocks)} blocks of ${now.block_size} tokens`);
    byId("bar-held").style.width = `${(100 * now.blocks_held) / now.blocks}%`;
    byId("bar-cached").style.width = `${(100 * now.blocks_cached) / now.blocks}%`;

    byId("live-requests").replaceChildren(...now.answering.map((request) => requestRow(request, now.context)));
    byId("live-none").hidden = now.answering.length > 0;
    byId("live-table").hidden = now.answering.length === 0;
    byId("heat").hidden = now.experts === null || now.experts.length === 0;
    byId("heat-none").hidden = !byId("heat").hidden;
    if (now.experts !== null && now.experts.length === 0) text("heat-none", "This model has no experts: it is dense.");
    if (!byId("heat").hidden) this.heatMap.add(now.experts);
  }
}

function push(values, value) {
  values.push(value);
  values.shift();
  return values;
}

/** Of what came since the last look, else of everything; null where there is nothing. */
function mean(now, before, name) {
  const more = now[name].count - before[name].count;
  if (more) return (now[name].sum - before[name].sum) / more;
  return now[name].count ? now[name].sum / now[name].count : null;
}

function milliseconds(seconds) {
  if (seconds === null) return "–";
  return seconds < 10 ? `${(1000 * seconds).toPrecision(seconds < 0.01 ? 2 : 3)} ms`.replace(/(\d)e\+3/, "$1000") : `${seconds.toFixed(1)} s`;
}

const count = (value) => value.toLocaleString("en");

function curve(svg, values) {
  const most = Math.max(...values, 1e-9);
  const x = (i) => (100 * i) / (values.length - 1);
  const points = values.map((value, i) => `${x(i).toFixed(2)},${(29 - (27 * value) / most).toFixed(2)}`);
  svg.querySelector("polyline").setAttribute("points", points.join(" "));
  svg.querySelector("polygon").setAttribute("points", ["0,30", ...points, "100,30"].join(" "));
}

function requestRow(request, context) {
  const done = Math.min(request.computed_tokens, request.prompt_tokens);
  const state = request.generated_tokens ? "answering" : `reading the prompt, ${Math.round((100 * done) / request.prompt_tokens)} %`;
  const used = request.prompt_tokens + request.generated_tokens;
  return make("tr", {},
    make("td", {}, state),
    make("td", { class: "right" }, `${count(request.prompt_tokens)} (${count(request.cached_tokens)})`),
    make("td", { class: "right" }, count(request.generated_tokens)),
    make("td", { class: "right" }, `${Math.round((100 * used) / context)} %`),
    make("td", { class: "right" }, `${request.seconds.toFixed(1)} s`));
}
