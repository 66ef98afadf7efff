"""`calibrate`: a model and a text in, an importance matrix out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from edgert_models.errors import EdgertError, RequestError
from edgert_models.graph import Plan
from edgert_quant.imatrix import Importance, coverage, rare_experts, require_coverage, write_imatrix
from edgert_runtimes.layerwise import Layerwise, Sequences

from edgert.calibration.model import Model
from edgert.calibration.sums import Checkpoint, SquaredInputs
from edgert.calibration.tokens import Tokens

WINDOW = 512
GROUP_TOKENS = 4096
"""Tokens that go through the model at once, in whole windows: every weight is read once for all of them."""
SAVE_EVERY = 60.0

Progress = Callable[[int, int], None]
"""progress(done, total): windows."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The result. `resumed` is how many of the windows an earlier, interrupted run had done."""

    model: str
    output: Path
    text_sha256: str
    window: int
    windows: int
    resumed: int
    seconds: float
    importance: Importance

    @property
    def tokens(self) -> int:
        """Of all windows."""
        return self.window * self.windows

    @property
    def warnings(self) -> list[str]:
        """What the user should know of it."""
        rare = rare_experts(self.importance)
        return [] if rare is None else [rare]

    def require(self, tokens: int) -> None:
        """EdgertError for the rarest expert of the first layer where one has seen fewer tokens."""
        require_coverage(self.importance, tokens, error=EdgertError, remedy="calibrate with more text")

    def plain(self, threshold: int) -> dict[str, Any]:
        """For JSON; `threshold`: experts below so many tokens are listed."""
        return {
            "model": self.model,
            "output": str(self.output),
            "text_sha256": self.text_sha256,
            "window": self.window,
            "windows": self.windows,
            "tokens": self.tokens,
            "resumed_windows": self.resumed,
            "seconds": round(self.seconds, 3),
            "entries": len(self.importance.sums),
            "threshold": threshold,
            "layers": [layer.plain(threshold) for layer in coverage(self.importance)],
            "warnings": self.warnings,
        }


def calibrate(
    model: str | Path | None,
    text: str | Path,
    output: str | Path,
    *,
    window: int = WINDOW,
    windows: int | None = None,
    process_output: bool = False,
    parse_special: bool = False,
    save_every: float = SAVE_EVERY,
    progress: Progress | None = None,
) -> Calibration:
    """Run a model over a text, and write the squares of what enters each of its matrices: an importance matrix, in the
    GGUF form of llama.cpp, for `edgert.convert(imatrix=...)` and llama-quantize.

    `model` is a GGUF file, a checkpoint folder, a hub id in the local cache, or None for the bundled demo model; best
    is one that is not quantized. `text` is a file of UTF-8 text, or of JSON lines with a "text". It is cut into windows
    of `window` tokens, of which `windows` are taken (None: all). With `parse_special`, what looks like a control token
    is that token. `process_output` collects for the output matrix too.

    Every `save_every` seconds the state is put beside the output (`OUTPUT.checkpoint`): the same call goes on from
    there when it was killed, and gives the same bytes. Memory is bounded by the model, not by the text.

    Raises RequestError (no such model or text, a text shorter than a window, the state of another run beside the
    output), what opening the model raises, BackendError (activations that are no numbers) and ConversionError (the
    output cannot be written).
    """
    started = time.perf_counter()
    output, text = Path(output), Path(text)
    with Model(model) as opened:
        if output.exists() and any(output.samefile(path) for path in (*opened.paths, text) if path.exists()):
            raise RequestError(f"{output}: is what is read; give another output", parameter="output")
        if not output.absolute().parent.is_dir():  # sooner than after hours
            raise RequestError(f"{output}: there is no folder {output.absolute().parent}", parameter="output")
        with Tokens(text, opened.tokenizer, window=window, most_windows=windows, parse_special=parse_special) as tokens:
            _check_context(opened.plan, window)
            found = SquaredInputs.as_llama_imatrix(opened.plan, output=process_output)
            identity = {"model": opened.fingerprint(), "text": tokens.sha256, "window": str(window)}
            options = f"windows {tokens.windows}, process_output {process_output}, parse_special {parse_special}"
            checkpoint = Checkpoint(output, identity | {"options": options})
            resumed = _measure(opened.walk(), tokens, found, checkpoint, save_every, progress)
            importance = Importance(found.sums(), (text.name,), tokens.windows, window, path=str(output))
            write_imatrix(output, importance)
            checkpoint.remove()
        return Calibration(
            model=opened.name,
            output=output,
            text_sha256=tokens.sha256,
            window=window,
            windows=tokens.windows,
            resumed=resumed,
            seconds=time.perf_counter() - started,
            importance=importance,
        )


def _check_context(plan: Plan, window: int) -> None:
    if window > plan.spec.context:
        reason = f"a window of {window} tokens is longer than the model's context of {plan.spec.context}"
        raise RequestError(reason, parameter="window")


def _measure(
    walk: Layerwise,
    tokens: Tokens,
    found: SquaredInputs,
    checkpoint: Checkpoint,
    save_every: float,
    progress: Progress | None,
) -> int:
    """Run all windows that the checkpoint has not done; how many it had."""
    resumed = done = checkpoint.load(found)
    group, saved = max(1, GROUP_TOKENS // tokens.window), time.monotonic()
    while done < tokens.windows:
        if progress is not None:
            progress(done, tokens.windows)
        batch = tokens.read(done, min(done + group, tokens.windows))
        with np.errstate(over="ignore", invalid="ignore"):  # found says where
            walk.observe(Sequences.of(batch), found)
        done += len(batch)
        if done < tokens.windows and time.monotonic() - saved >= save_every:
            checkpoint.save(found, done)
            saved = time.monotonic()
    if progress is not None:
        progress(done, tokens.windows)
    return resumed
