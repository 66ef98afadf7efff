"""Loss per byte, rung by rung, judged by stock llama.cpp; as JSON, and as a picture.

    LLAMA_CPP_LIB_PATH=FOLDER python -m benchmarks.ladder SOURCE --calibration TEXT --held-out TEXT --programs FOLDER
        [--types iq2_m iq3_xxs iq4_xs] [--steps 100] [--windows 64] [--work FOLDER]
    python -m benchmarks.ladder --draw FILE RESULT...

SOURCE is a GGUF of floats. For each type: llama-quantize; with the importance matrix of llama-imatrix; and, in files
that are no larger than that one: our rounding in the same mix; types allocated under its size; compensated rounding;
tuned scales. Logits of all files and of SOURCE are computed by llama.cpp's own library (package `llama_cpp`, libraries
in LLAMA_CPP_LIB_PATH), with its cache in F32; what counts is the second half of each window of the held-out text.
`--draw` makes a picture of what was printed, a panel for each source.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.matmul import commit
from edgert.cli.plots import figure_of
from edgert.tuning.material import Model
from edgert.tuning.pipeline import Options, convert
from edgert.windows import log_softmax

WINDOW = 256
RUNGS = (
    "llama-quantize",
    "llama-quantize, imatrix",
    "edgert, same mix",
    "edgert, allocated",
    "edgert, compensated",
    "edgert, tuned",
)


class Stock:
    """llama.cpp's library through its Python binding."""

    def __init__(self) -> None:
        self.api: Any = importlib.import_module("llama_cpp.llama_cpp")
        self._quiet = self.api.llama_log_callback(lambda level, text, data: None)
        self.api.llama_log_set(self._quiet, ctypes.c_void_p(0))
        self.api.llama_backend_init()

    def predictions(self, path: Path, windows: list[list[int]]) -> NDArray[np.float64]:
        """Log-probabilities of what follows each token of the windows' second halves but the last."""
        api, half = self.api, WINDOW // 2
        model = api.llama_model_load_from_file(str(path).encode(), api.llama_model_default_params())
        if not model:
            raise SystemExit(f"llama.cpp does not load {path}")
        options = api.llama_context_default_params()
        options.n_ctx = options.n_batch = options.n_ubatch = WINDOW
        options.type_k = options.type_v = 0
        options.flash_attn_type = 0
        context = api.llama_init_from_model(model, options)
        size = api.llama_vocab_n_tokens(api.llama_model_get_vocab(model))
        batch = api.llama_batch_init(WINDOW, 0, 1)
        rows = []
        for window in windows:
            api.llama_memory_clear(api.llama_get_memory(context), True)
            batch.n_tokens = len(window)
            for i, token in enumerate(window):
                batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, i, 1
                batch.logits[i], batch.seq_id[i][0] = half <= i < len(window) - 1, 0
            if api.llama_decode(context, batch):
                raise SystemExit(f"llama.cpp does not run {path}")
            found = [api.llama_get_logits_ith(context, i) for i in range(half, len(window) - 1)]
            rows.append(log_softmax(np.stack([np.ctypeslib.as_array(row, (size,)) for row in found])))
        api.llama_batch_free(batch)
        api.llama_free(context)
        api.llama_model_free(model)
        return np.concatenate(rows)


def program(folder: Path, name: str, *arguments: object) -> None:
    """Run one of llama.cpp's programs."""
    command = [str(folder / name), *map(str, arguments)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise SystemExit(f"{name} failed: {finished.stderr.strip().splitlines()[-1:]}")


def judged(path: Path, p: NDArray[np.float64], q: NDArray[np.float64]) -> dict[str, Any]:
    """A file's size and its divergence from the source's predictions `p`, in nats."""
    d = np.maximum((np.exp(p) * (p - q)).sum(axis=1), 0)
    mean, spread = float(d.mean()), float(d.std(ddof=1) / np.sqrt(len(d)))
    shares = {"median": 0.5, "p99": 0.99, "p99.9": 0.999}
    quantiles = {name: float(np.quantile(d, share)) for name, share in shares.items()}
    same = float((p.argmax(axis=1) == q.argmax(axis=1)).mean())
    return {"bytes": path.stat().st_size, "mean": mean, "error": spread, **quantiles, "same_top": same}


def ours(source: Path, output: Path, text: str, work: Path, **options: Any) -> dict[str, float]:
    """Convert; the divergences that were measured on the way."""

    def say(stage: str, done: int, total: int) -> None:
        if done == total:
            print(f"{output.name}: {stage}", file=sys.stderr)

    asked = Options(calibration=text, work=work, keep_work=True, **options)
    return convert(source, output, asked, progress=say).divergence


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", type=Path, nargs="+", metavar="SOURCE")
    parser.add_argument("--calibration", type=Path)
    parser.add_argument("--held-out", type=Path)
    parser.add_argument("--programs", type=Path)
    parser.add_argument("--types", nargs="+", default=["iq2_m", "iq3_xxs", "iq4_xs"])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--windows", type=int, default=64)
    parser.add_argument("--work", type=Path, default=Path("ladder"))
    parser.add_argument("--draw", type=Path)
    given = parser.parse_args()
    if given.draw is not None:
        draw([json.loads(path.read_text()) for path in given.sources], given.draw)
        return
    if len(given.sources) > 1 or None in (given.calibration, given.held_out, given.programs):
        parser.error("one SOURCE, --calibration, --held-out and --programs are needed")
    (source,) = given.sources
    given.work.mkdir(parents=True, exist_ok=True)
    text, model = given.calibration.read_text(), Model(source)
    ids = model.tokenizer.encode(given.held_out.read_text(), add_special=False)
    model.close()
    windows = [ids[start : start + WINDOW] for start in range(0, len(ids) - WINDOW + 1, WINDOW)][: given.windows]
    stock, results = Stock(), []
    p = stock.predictions(source, windows)
    matrix = given.work / "imatrix.gguf"
    if not matrix.exists():
        asked = ("-m", source, "-f", given.calibration, "-o", matrix, "--parse-special", "--no-ppl")
        program(given.programs, "llama-imatrix", *asked, "-c", 2 * WINDOW)
    for kind in given.types:
        files = [given.work / f"{kind}-{i}.gguf" for i in range(len(RUNGS))]
        plan, own = given.work / f"{kind}.toml", given.work / "measured"
        program(given.programs, "llama-quantize", "--imatrix", matrix, source, files[1], kind.upper())
        try:
            program(given.programs, "llama-quantize", source, files[0], kind.upper())
        except SystemExit:  # it refuses the smallest types without an importance matrix
            files[0] = files[1]
        size = files[1].stat().st_size
        ours(source, files[2], text, own, type=kind, compensate=False)
        ours(source, files[3], text, own, budget=size, compensate=False)
        ours(source, files[4], text, own, budget=size, save_plan=plan)
        told = ours(source, files[5], text, own, plan=plan, steps=given.steps)
        for rung, path in zip(RUNGS, files, strict=True):
            if rung == RUNGS[0] and path == files[1]:
                continue
            found = judged(path, p, stock.predictions(path, windows))
            results.append({"type": kind, "rung": rung, **found})
            print(json.dumps(results[-1]), file=sys.stderr)
        results.append({"type": kind, "rung": "told by edgert", **told})
    print(json.dumps({"commit": commit(), "source": source.name, "tokens": len(p), "results": results}, indent=1))


def draw(ladders: list[dict[str, Any]], path: Path) -> None:
    """Bytes against mean divergence, a line for each rung, a panel for each source."""
    figure = figure_of(4.2 * len(ladders), 4.2)
    panels = figure.subplots(1, len(ladders), sharey=True, squeeze=False)[0]
    for axes, ladder in zip(panels, ladders, strict=True):
        for rung in RUNGS:
            own = sorted((each["bytes"] / 1e6, each["mean"]) for each in ladder["results"] if each["rung"] == rung)
            if own:
                axes.semilogy(*zip(*own, strict=True), marker="o", label=rung)
        axes.set_title(Path(ladder["source"]).stem)
        axes.set_xlabel("file, MB")
        axes.grid(alpha=0.3, which="both")
    panels[0].set_ylabel("mean KL divergence from the source, nats")
    panels[-1].legend(fontsize="small")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
