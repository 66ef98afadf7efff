"""What tuning works with: a model as it is before quantization, and a calibration text in windows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from edgert_models.errors import RequestError
from edgert_models.graph import Plan
from edgert_models.registry import build_plan, spec_from_gguf
from edgert_quant.gguf import GgufFile
from edgert_quant.imatrix import Importance
from edgert_runtimes.base import WeightProvider
from edgert_runtimes.layerwise import Layerwise, Sequences
from edgert_runtimes.weights import GgufWeights, check_weights
from numpy.typing import NDArray

from edgert.calibration.model import fingerprint, walk_through
from edgert.calibration.sums import SquaredInputs
from edgert.text.tokenizer import Tokenizer
from edgert.tuning.targets import Targets

WINDOW = 256
BATCH = 8
"""Windows that are run at once where a pass over all is not needed."""
HELD_OUT = 5
"""One batch in so many is held out, to decide by."""


class Model:
    """An open GGUF file as a plan with weights."""

    def __init__(self, path: Path) -> None:
        self.file = GgufFile.open(path)
        try:
            shapes = {name: tensor.shape for name, tensor in self.file.tensors.items()}
            self.plan: Plan = build_plan(spec_from_gguf(self.file.metadata, shapes))
            self.provider: WeightProvider = GgufWeights(self.file)
            check_weights(self.plan, self.provider, str(path))
            self.tokenizer = Tokenizer.from_gguf(self.file.metadata)
        except BaseException:
            self.file.close()
            raise

    @property
    def matrices(self) -> list[str]:
        """Tensors that are quantized, in the order of the file."""
        return [name for name, weight in self.plan.weights.items() if not weight.role.stays_float]

    def walk(self, provider: WeightProvider | None = None) -> Layerwise:
        """A way through the plan, with these weights (which stay as they are) instead of the file's."""
        return walk_through(self.plan, provider or self.provider)

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class Material:
    """Batches of windows of a text: `fit` to work on, and `held` to decide by; and what the reference says to them.

    RequestError for a text of fewer than two windows.
    """

    def __init__(self, model: Model, text: str, *, window: int = WINDOW, tokens: int | None = None) -> None:
        self.model = model
        self.text_sha256 = hashlib.sha256(text.encode()).hexdigest()
        self.window = window
        ids = model.tokenizer.encode(text, add_special=False)[: None if tokens is None else max(tokens, 2 * window)]
        windows = [ids[start : start + window] for start in range(0, len(ids) - window + 1, window)]
        if len(windows) < 2:
            reason = f"the calibration text has {len(ids)} tokens; two windows of {window} are the least"
            raise RequestError(reason, parameter="calibration")
        groups = [windows[start : start + BATCH] for start in range(0, len(windows), BATCH)]
        if len(groups) == 1:
            groups = [windows[:-1], windows[-1:]]
        held = groups[HELD_OUT - 1 :: HELD_OUT] or groups[-1:]
        fit = [group for group in groups if not any(group is other for other in held)]
        self._windows = [each for group in (*fit, *held) for each in group]
        self.tokens = len(windows) * window
        self.fit, self.held = ([Sequences.of(group) for group in groups] for groups in (fit, held))
        self._targets: dict[int, Targets] = {}
        self.taught_by = ""
        """The fingerprint of a teacher, if there is one."""

    @cached_property
    def key(self) -> str:
        """Tells model and text apart from others."""
        model = fingerprint(self.model.plan, self.model.provider)
        return f"{model} {self.text_sha256} {self.window} {self.tokens}"

    @cached_property
    def reference(self) -> Layerwise:
        """The model as it is."""
        return self.model.walk()

    def everything(self) -> tuple[Sequences, NDArray[np.bool_]]:
        """All windows as one batch, and which of its rows are held out."""
        held = np.arange(self.tokens) >= sum(len(part.tokens) for part in self.fit)
        return Sequences.of(self._windows), held

    def importance(self) -> Importance:
        """The mean squares of what enters each matrix over the whole text, where anything does."""
        found = SquaredInputs(self.model.plan.weights[name] for name in self.model.matrices)
        for batch in (*self.fit, *self.held):
            self.reference.observe(batch, found)
        return Importance({name: sums for name, sums in found.sums().items() if sums.counts.any()})

    def learn(self, teacher: Model) -> None:
        """Take what `teacher` predicts for all targets; a teacher of another vocabulary is a RequestError."""
        if teacher.plan.spec.vocabulary != self.model.plan.spec.vocabulary or any(
            teacher.tokenizer.decode([i]) != self.model.tokenizer.decode([i])
            for i in range(0, teacher.plan.spec.vocabulary, 97)
        ):
            raise RequestError("the teacher has another vocabulary than the model", parameter="teacher")
        self.taught_by = fingerprint(teacher.plan, teacher.provider)
        walk = teacher.walk()
        for batch in (*self.fit, *self.held):
            self._targets[id(batch)] = Targets.of(walk.logits(batch))

    def targets(self, batch: Sequences) -> Targets:
        """What the model itself, unquantized, predicts (or whom `learn` heard); computed once."""
        if id(batch) not in self._targets:
            self._targets[id(batch)] = Targets.of(self.reference.logits(batch))
        return self._targets[id(batch)]

    def divergence(self, walk: Layerwise, batches: Sequence[Sequences]) -> float:
        """The mean over all rows of batches."""
        found = [self.targets(batch).divergence(walk.logits(batch)) for batch in batches]
        return float(np.concatenate(found).mean())
