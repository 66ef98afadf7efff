"""Damaged files of predictions: what is read is sound, or the error is typed; nothing else, and at once."""

from pathlib import Path

import numpy as np
import pytest
from edgert_models.errors import FileFormatError, UnsupportedError
from edgert_quant.blocks import BlockType
from edgert_quant.gguf import GgufFile, GgufWriter

from edgert.predictions import Predictions, layout
from tests.support.budget import run_limited

MUTANTS = 1500
GOOD = {"model": "m", "text_sha256": "t", "vocabulary_sha256": "v", "vocabulary": 9, "window": 8, "windows": 2}
GOOD |= {"top": 2, "samples": 2, "version": 1}

SCRIPT = """
from pathlib import Path
import numpy as np
from edgert.predictions import Predictions
from tests.support.hostile import Mutator, survival

path, count = Path(sys.argv[1]), int(sys.argv[2])
mutator = Mutator([path.read_bytes()], 7, header_bytes=900)
Predictions.open(path).close()

def read(data):
    with Predictions.open(path) as stored:
        for window in range(stored.windows):
            ids, p, rest = stored.rows(window)
            assert 0 <= ids.min() and ids.max() < stored.vocabulary
            assert np.isfinite(p).all() and not np.isnan(rest).any()
            assert len(stored.tokens(window)) == stored.window
            assert len(stored.following(window)) == len(stored.sampled(window)[0]) == len(ids)

limit_memory(64 << 20)
print(json.dumps(survival(path, mutator, count, read)))
"""


def write(path: Path, changes: dict[str, object] | None = None, **tensors: np.ndarray) -> Path:
    """Predictions of two windows of eight tokens out of nine; `tensors` by the first word of their names."""
    rows = np.log(np.full((2, 3, 2), 0.3, np.float32))
    values = {
        "tokens": np.arange(16).reshape(2, 8) % 9,
        "top.ids": np.tile([4, 1], (2, 3, 1)),
        "top.log_probabilities": rows,
        "rest.log_probabilities": np.log(np.full((2, 3), 0.4, np.float32)),
        "next.log_probabilities": rows[:, :, 0],
        "sample.ids": np.tile([2, 7], (2, 3, 1)),
        "sample.log_probabilities": rows - 2,
    } | {name.replace("_", ".", 1): value for name, value in tensors.items()}
    entries = GOOD | (changes or {})
    kinds = {name: kind for name, (kind, _) in layout.tensors(2, 8, 2, 2, 9).items()}
    with GgufWriter(path) as writer:
        writer.add_metadata("general.type", "edgert.predictions")
        for key, value in entries.items():
            writer.add_metadata(f"edgert.predictions.{key}", value)  # type: ignore[arg-type]
        for name, value in values.items():
            writer.add_tensor(name, kinds[name], value.shape)
        writer.begin()
        for name, value in values.items():
            writer.write(name, value.astype(layout.DTYPES[kinds[name]]))
    return path


def test_mutants(tmp_path: Path) -> None:
    found = run_limited(SCRIPT, write(tmp_path / "p.gguf"), MUTANTS)
    assert isinstance(found, list)
    read, refused, slowest, _ = found
    assert read + refused == MUTANTS
    assert read > 30
    assert refused > MUTANTS // 2
    assert slowest < 1  # not a speed: a hang


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "predictions of version 2; this edgert reads 1"),
        ({"window": 4}, "edgert.predictions.window: is 4, below 8"),
        ({"window": 1 << 30}, "above 1048576"),
        ({"windows": 0}, "edgert.predictions.windows: is 0, below 1"),
        ({"windows": 3}, "tensor tokens: is I32 [2, 8], not I32 [3, 8]"),
        ({"top": 10}, "edgert.predictions.top: is 10, above 9"),
        ({"samples": 3}, "tensor sample.ids: is I16 [2, 3, 2], not I16 [2, 3, 3]"),
        ({"vocabulary": 1 << 16}, "tensor top.ids: is I16 [2, 3, 2], not I32 [2, 3, 2]"),
        ({"model": 3}, "edgert.predictions.model: is UINT32, not a string"),
    ],
)
def test_headers(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises((FileFormatError, UnsupportedError)) as caught:
        Predictions.open(write(tmp_path / "p.gguf", changes))
    assert message in str(caught.value)


def with_one(value: float, shape: tuple[int, ...] = (2, 3, 2), fill: float = np.log(0.3)) -> np.ndarray:
    """An array with one other value, in the second window."""
    found = np.full(shape, fill, np.float32)
    found[1, 1] = value
    return found


def read_whole(stored: Predictions) -> None:
    for read in (stored.tokens, stored.following, stored.sampled, stored.rows):
        read(1)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"tokens": with_one(9, (2, 8), 1)}, "tensor tokens: row 1 of window 1 names a token of no vocabulary"),
        ({"top_ids": np.full((2, 3, 2), -1)}, "tensor top.ids: row 0 of window 1 names a token of no vocabulary"),
        ({"top_ids": np.full((2, 3, 2), 3)}, "tensor top.ids: row 0 of window 1 names a token twice"),
        ({"top_log_probabilities": with_one(np.nan)}, "row 1 of window 1 has no log-probability"),
        ({"top_log_probabilities": with_one(0.5)}, "row 1 of window 1 has no log-probability"),
        ({"top_log_probabilities": with_one(-0.1)}, "row 1 of window 1 has probabilities whose sum is not 1"),
        ({"rest_log_probabilities": with_one(np.nan, (2, 3))}, "row 1 of window 1 has no log-probability"),
        ({"next_log_probabilities": with_one(np.inf, (2, 3))}, "row 1 of window 1 has no log-probability"),
        ({"sample_ids": np.full((2, 3, 2), 9)}, "tensor sample.ids: row 0 of window 1 names a token of no vocabulary"),
    ],
)
def test_contents(tmp_path: Path, tensors: dict[str, np.ndarray], message: str) -> None:
    path = write(tmp_path / "p.gguf", **tensors)
    with Predictions.open(path) as stored, pytest.raises(FileFormatError) as caught:
        read_whole(stored)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_tensor(tmp_path: Path) -> None:
    path = tmp_path / "p.gguf"
    with GgufFile.open(write(path)) as file, GgufWriter(path) as writer:
        for key, value in file.metadata.items():
            writer.add_metadata(key, value)  # type: ignore[arg-type]
        writer.add_tensor("tokens", BlockType.I32, (2, 8))
        writer.begin()
        writer.write("tokens", file.read("tokens"))
    with pytest.raises(FileFormatError, match=r"tensor 'top.ids': is not in the file"):
        Predictions.open(path)
