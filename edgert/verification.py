"""Whether a model file is what its receipt says: the same weights, and figures that can be measured again."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgert_models.errors import RequestError, VerificationError
from edgert_quant.gguf import GgufFile, weights_sha256

from edgert import LLM
from edgert.evaluation import evaluate
from edgert.predictions import Predictions
from edgert.receipt import Receipt, figures_of, predictions_path
from edgert.resolve import resolve_model

SAME = 0.01
"""On the backend that the receipt was made with, a figure may differ by this part of it: instruction sets and numbers
of threads give the same logits there, other versions nearly the same.
"""
OTHER, OTHER_PERPLEXITY, OTHER_SHARE, LEAST = 0.2, 0.01, 0.02, 0.001
"""On another backend, which rounds activations otherwise: parts of divergences and of perplexities, shares of tokens,
and nats by which divergences may differ in any case. docs/verify.md has what was measured.
"""


@dataclass(frozen=True)
class Check:
    """One thing that the receipt says, and what was found. `tolerance` is by how much a figure may differ."""

    name: str
    recorded: float | str
    found: float | str
    tolerance: float | None = None

    @property
    def passed(self) -> bool:
        """Whether they agree."""
        if isinstance(self.recorded, str) or isinstance(self.found, str) or self.tolerance is None:
            return self.recorded == self.found
        return math.isclose(self.recorded, self.found, rel_tol=0, abs_tol=self.tolerance)


@dataclass(frozen=True)
class Verification:
    """All checks that were made. Where one of weights or predictions fails, nothing is measured."""

    model: str
    receipt: Receipt
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether all did."""
        return all(check.passed for check in self.checks)

    def require(self) -> None:
        """VerificationError names the first check that failed."""
        for check in self.checks:
            if not check.passed:
                raise VerificationError(f"{self.model}: {_complaint(check)}")

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        checks = [asdict(check) | {"passed": check.passed} for check in self.checks]
        return {"model": self.model, "passed": self.passed, "checks": checks, "receipt": asdict(self.receipt)}


def verify(
    model: str | Path | None,
    predictions: str | Path | None = None,
    *,
    backend: str = "auto",
    threads: int | None = None,
    memory: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Verification:
    """Compare a model file with its receipt. `predictions` are looked for beside the model if none are given: as
    NAME.predictions.gguf, then under the name that the receipt has. `progress(stage, done, total)` counts bytes, then
    windows.

    RequestError if there is no receipt, or no predictions; FileFormatError for damaged files.
    """
    path = resolve_model(model)
    told = progress or (lambda stage, done, total: None)
    with GgufFile.open(path) as file:
        receipt = Receipt.read(file.metadata)
        if receipt is None:
            raise RequestError(
                f"{path} has no receipt; edgert evaluate {path.name} … --reference … --record writes one",
                parameter="model",
            )
        digest = weights_sha256(file, lambda done, total: told("weights", done, total))
    checks = [Check("weights_sha256", receipt.weights_sha256, digest)]
    stored = _find(path, receipt, predictions)
    with Predictions.open(stored) as reference:
        checks.append(Check("predictions_sha256", receipt.predictions_sha256, reference.sha256()))
        if all(check.passed for check in checks):
            with LLM(
                path, backend=backend, threads=threads, memory=memory, context=reference.window, sequences=1
            ) as llm:
                found = evaluate(
                    llm,
                    reference=reference,
                    names=(path.name, reference.model),
                    most_windows=receipt.windows,
                    progress=lambda done, total: told("evaluating", done, total),
                )
                same = llm.report.backend == receipt.backend
            checks += [
                Check("text_sha256", receipt.text_sha256, found.text_sha256),
                Check("tokens", receipt.tokens, found.tokens, 0),
                Check("window", receipt.window, found.window, 0),
            ]
            recorded = receipt.figures()
            checks += [
                Check(name, recorded[name], value, tolerance(name, recorded[name], same=same))
                for name, value in figures_of(found).items()
            ]
    return Verification(path.name, receipt, tuple(checks))


def tolerance(name: str, recorded: float, *, same: bool) -> float:
    """By how much a figure may differ from the receipt's, on the `same` backend or another one."""
    if same or name == "reference_perplexity":  # which is stored
        return SAME * recorded
    if name == "same_top":
        return OTHER_SHARE
    return OTHER_PERPLEXITY * recorded if name == "perplexity" else OTHER * recorded + LEAST


def _find(path: Path, receipt: Receipt, given: str | Path | None) -> Path:
    """The stored predictions; RequestError where there are none."""
    if given is not None:
        return Path(given)
    places = [predictions_path(path)]
    if Path(receipt.predictions).name == receipt.predictions:  # else the file names a path of its own choice
        places.append(path.with_name(receipt.predictions))
    for place in places:
        if place.is_file():
            return place
    names = " nor ".join(dict.fromkeys(place.name for place in places))
    reason = f"{path.parent} has no {names}: name the predictions of {receipt.reference} by --predictions"
    raise RequestError(reason, parameter="predictions")


def _complaint(check: Check) -> str:
    """What is wrong, in words."""
    if check.name == "weights_sha256":
        return "the weights are not those of the receipt (weights_sha256): they were changed after it was written"
    if check.name == "predictions_sha256":
        return "these predictions are not those of the receipt (predictions_sha256): give the file it was made with"
    if check.tolerance:
        return (
            f"{check.name} is {check.found:.6g}, and {check.recorded:.6g} on the receipt; "
            f"more than {check.tolerance:.2g} apart"
        )
    return f"{check.name} is {check.found}, and {check.recorded} on the receipt"
