// A heat map of experts by layer: how many of its layer's tokens each has had, beside an even share.

const FADING = 0.9; // what came a second ago counts so much less
const HOT = 4; // times an even share, from which on a cell has the strongest colour

export class HeatMap {
  /** A canvas, and the element that tells about the cell under the pointer or the cursor. */
  constructor(canvas, told) {
    this.canvas = canvas;
    this.told = told;
    this.layers = [];
    this.lately = [];
    this.mode = "lately";
    this.cell = null;
    canvas.addEventListener("pointermove", (event) => this.#point(event));
    canvas.addEventListener("pointerleave", () => this.#select(null));
    canvas.addEventListener("blur", () => this.#select(null));
    canvas.addEventListener("keydown", (event) => this.#move(event));
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  choose(mode) {
    this.mode = mode;
    this.draw();
  }

  /** Take a look: [{layer, tokens}], counted since the model was loaded. */
  add(layers) {
    const alike = this.layers.length === layers.length && this.layers.every(({ tokens }, row) =>
      tokens.length === layers[row].tokens.length && tokens.every((count, expert) => count <= layers[row].tokens[expert]));
    if (!alike) this.lately = []; // another model, or one that was loaded again
    const before = alike ? this.layers : layers;
    this.lately = layers.map(({ tokens }, row) => tokens.map((count, expert) =>
      FADING * (this.lately[row]?.[expert] ?? 0) + count - before[row].tokens[expert]));
    this.layers = layers;
    this.draw();
  }

  draw() {
    const rows = this.#rows();
    const { canvas } = this;
    const width = canvas.clientWidth;
    if (!rows.length || !width) return;
    const columns = Math.max(...rows.map((row) => row.length));
    const tall = Math.max(6, Math.min(24, Math.floor(360 / rows.length)));
    const ratio = window.devicePixelRatio || 1;
    canvas.width = width * ratio;
    canvas.height = rows.length * tall * ratio;
    canvas.style.height = `${rows.length * tall}px`;
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    const style = getComputedStyle(canvas);
    const gap = Math.min(width / columns, tall) > 5 ? 1 : 0;
    const [cold, hot] = ["--cold", "--hot"].map((name) => style.getPropertyValue(name));
    const place = (column) => Math.round((column * width) / columns);
    rows.forEach((row, y) => {
      const whole = row.reduce((sum, count) => sum + count, 0);
      row.forEach((count, x) => {
        const times = whole ? (count * row.length) / whole : 0;
        context.fillStyle = cold;
        context.fillRect(place(x), y * tall, place(x + 1) - place(x) - gap, tall - gap);
        context.globalAlpha = Math.min(times / HOT, 1);
        context.fillStyle = hot;
        context.fillRect(place(x), y * tall, place(x + 1) - place(x) - gap, tall - gap);
        context.globalAlpha = 1;
      });
    });
    if (this.cell) {
      const { x, y } = this.cell;
      context.strokeStyle = style.color;
      context.lineWidth = 2;
      context.strokeRect(place(x) + 1, y * tall + 1, place(x + 1) - place(x) - 2 - gap, tall - 2 - gap);
    }
    this.#tell(rows);
  }

  #rows() {
    return this.mode === "lately" ? this.lately : this.layers.map((layer) => layer.tokens);
  }

  #point(event) {
    const box = this.canvas.getBoundingClientRect();
    const rows = this.#rows();
    if (!rows.length) return;
    const y = Math.min(Math.floor(((event.clientY - box.top) / box.height) * rows.length), rows.length - 1);
    const columns = Math.max(...rows.map((row) => row.length));
    const x = Math.min(Math.floor(((event.clientX - box.left) / box.width) * columns), columns - 1);
    this.#select(y >= 0 && x >= 0 ? { x, y } : null);
  }

  #move(event) {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const rows = this.#rows();
    if (!step || !rows.length) return;
    event.preventDefault();
    const { x, y } = this.cell ?? { x: -step[0], y: -step[1] };
    const row = Math.max(0, Math.min(rows.length - 1, y + step[1]));
    this.#select({ x: Math.max(0, Math.min(rows[row].length - 1, x + step[0])), y: row });
  }

  #select(cell) {
    this.cell = cell;
    this.draw();
  }

  #tell(rows) {
    const { layers, cell } = this;
    const wholes = rows.map((row) => row.reduce((sum, count) => sum + count, 0));
    const share = (y, x) => (wholes[y] ? (100 * rows[y][x]) / wholes[y] : 0);
    const about = (y, x) => `layer ${layers[y].layer}, expert ${x}: ${share(y, x).toFixed(1)} %`;
    let [top, left] = [0, 0];
    rows.forEach((row, y) => row.forEach((_, x) => {
      if (share(y, x) > share(top, left)) [top, left] = [y, x];
    }));
    const all = rows.flat();
    const used = all.filter((count) => count > 0.5).length;
    const summary = share(top, left) ? `Busiest: ${about(top, left)} of its layer. ${used} of ${all.length} experts used.` :
      "No tokens lately.";
    this.canvas.setAttribute("aria-label", `Experts by layer. ${summary}`);
    const even = (100 / rows[cell?.y ?? 0].length).toFixed(1);
    this.told.textContent = cell && cell.x < rows[cell.y].length ?
      `${about(cell.y, cell.x)} of its layer (even: ${even} %), ${layers[cell.y].tokens[cell.x].toLocaleString("en")} tokens in all`
        .replace("layer", "Layer") : summary;
  }
}
