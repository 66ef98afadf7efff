"""What a model file says of its own quality: how far its predictions are from a reference's, with all it takes to
measure that again.

The receipt is metadata under `edgert.quality.`: figures (float64), what they were measured on (the stored predictions
and their text, as SHA-256), and the SHA-256 of the weights that they belong to. It is no signature: whoever can edit
the file can write another one. But whoever has the predictions can check it (`edgert.verification`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from edgert_models.errors import RequestError
from edgert_quant.gguf import GgufFile, GgufMetadata, rewrite_metadata, weights_sha256

from edgert.evaluation import Evaluation
from edgert.predictions import Predictions

PREFIX = "edgert.quality."
_SHARD = re.compile(r"-00001-of-\d{5}$")


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """Each field is a key under `edgert.quality.`. Divergences (`kl_…`) are in nats, from the reference's distribution
    of the next token: over its listed tokens and all others as one. `same_top` is a share. `tokens` is how many
    predictions count, in so many `windows` of `window` tokens; `predictions` is the stored predictions' file name;
    `date` is YYYY-MM-DD in UTC.
    """

    kl_mean: float
    kl_median: float
    kl_99: float
    kl_99_9: float
    same_top: float
    perplexity: float
    reference_perplexity: float
    reference: str
    text_sha256: str
    tokens: int
    window: int
    windows: int
    predictions: str
    predictions_sha256: str
    weights_sha256: str
    backend: str
    tool: str
    date: str

    @classmethod
    def read(cls, metadata: GgufMetadata) -> Receipt | None:
        """The receipt in a file's metadata, None if it has none; FileFormatError for one that is damaged."""
        if not any(key.startswith(PREFIX) for key in metadata):
            return None
        found: dict[str, Any] = {}
        for field in fields(cls):
            key = PREFIX + field.name
            if field.type == "float":
                found[field.name] = metadata.number(key, minimum=0)
            elif field.type == "int":
                found[field.name] = metadata.integer(key, minimum=1)
            else:
                found[field.name] = metadata.string(key)
        return cls(**found)

    def figures(self) -> dict[str, float]:
        """What was measured, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.type == "float"}

    def entries(self) -> Iterator[tuple[str, object]]:
        """Metadata, as a file has them."""
        for key, value in asdict(self).items():
            yield PREFIX + key, np.float64(value) if isinstance(value, float) else value


def figures_of(found: Evaluation) -> dict[str, float]:
    """What a receipt says of an evaluation beside a reference."""
    beside = found.comparison
    assert beside is not None
    return {
        "kl_mean": beside.divergence.mean,
        "kl_median": beside.median,
        "kl_99": beside.percentile_99,
        "kl_99_9": beside.percentile_99_9,
        "same_top": beside.same_top.mean,
        "perplexity": found.perplexity.mean,
        "reference_perplexity": beside.reference_perplexity.mean,
    }


def record_receipt(
    path: str | Path,
    found: Evaluation,
    predictions: Predictions,
    *,
    backend: str,
    progress: Callable[[int, int], None] | None = None,
) -> Receipt:
    """Write a receipt of `found` into the GGUF file at `path` (of a split set, the first shard), in place of an older
    one. `found` is the evaluation of that file on `backend` beside `predictions`.

    The file is written anew and takes the old one's place; weights stay as they are. `progress(done, total)` counts
    bytes of weights. RequestError for an evaluation beside something else, ConversionError where nothing can be
    written.
    """
    from edgert import __version__

    if found.comparison is None or found.text_sha256 != predictions.text_sha256:
        raise RequestError(f"the evaluation was not made beside {predictions.path.name}", parameter="predictions")
    with GgufFile.open(path) as file:
        digest = weights_sha256(file, progress)
    receipt = Receipt(
        **figures_of(found),
        reference=predictions.model,
        text_sha256=found.text_sha256,
        tokens=found.tokens,
        window=found.window,
        windows=found.windows,
        predictions=predictions.path.name,
        predictions_sha256=predictions.sha256(),
        weights_sha256=digest,
        backend=backend,
        tool=f"edgert {__version__}",
        date=datetime.now(UTC).date().isoformat(),
    )
    rewrite_metadata(path, dict(receipt.entries()), without=PREFIX)
    return receipt


def predictions_path(model: Path) -> Path:
    """Where predictions that belong to a model file are looked for first: NAME.predictions.gguf beside it."""
    return model.with_name(_SHARD.sub("", model.stem) + ".predictions.gguf")
