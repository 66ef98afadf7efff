"""Damaged model files, opened as a user would: a model that runs, or a typed error; nothing else, and at once."""

import random
import time
from pathlib import Path

import pytest
from edgert_models.errors import EdgertError
from edgert_quant.gguf import GgufFile

from edgert import LLM, SamplingParams

FILES = 300
INTERESTING = (0, 1, 2, 3, 2**20, 2**31 - 1, 2**31, 2**32 - 1)


def mutated(data: bytes, header: int, seed: int) -> bytes:
    """Flipped bits, foreign bytes, odd counts and lengths, cuts: most of them in the header."""
    chance = random.Random(seed)
    content = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
        place, kind = chance.randrange(header), chance.random()
        if kind < 0.5:
            content[place] ^= 1 << chance.randrange(8)
        elif kind < 0.7:
            content[place] = chance.randrange(256)
        elif kind < 0.95:
            width = chance.choice((4, 8))
            content[place : place + width] = chance.choice(INTERESTING).to_bytes(width, "little")
        else:
            return bytes(content[: chance.randrange(len(content))])
    return bytes(content)


@pytest.mark.filterwarnings("ignore:the model was trained")
def test_damaged_models(tiny_path: Path, tmp_path: Path) -> None:
    data = tiny_path.read_bytes()
    with GgufFile.open(tiny_path) as file:
        header = min(tensor.offset for tensor in file.tensors.values())
    path = tmp_path / "damaged.gguf"
    ran = refused = 0
    for seed in range(FILES):
        path.write_bytes(mutated(data, header, seed))
        start = time.monotonic()
        try:
            with LLM(path, backend="reference") as llm:
                llm.generate([1, 2, 3], SamplingParams(max_tokens=2, temperature=0.0))
            ran += 1
        except EdgertError:
            refused += 1
        assert time.monotonic() - start < 10, seed  # not a speed: a hang
    assert ran + refused == FILES
    assert ran > 0
    assert refused > FILES // 2
