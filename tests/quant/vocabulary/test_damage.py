"""Damaged tokenizer files give an error of ours or a tokenizer, never another exception."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from edgert_models.errors import EdgertError
from edgert_quant.vocabulary import Vocabulary, build_encoder, ggml_metadata, rebuild_encoder

from tests.quant.vocabulary.checkpoints import (
    byte_level_json,
    post_processor,
    sentencepiece_json,
    sentencepiece_model,
    write,
)
from tests.quant.vocabulary.tiny import bpe_metadata, spm_metadata

_VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    3,
    10**30,
    1.5,
    float("nan"),
    "",
    "a",
    "\ud800",
    [],
    ["a"],
    {},
    {"type": "BPE"},
]


def bpe_json() -> dict[str, Any]:
    vocabulary = Vocabulary.from_metadata(bpe_metadata(control=["<|im_end|>"], pre="qwen2"))
    return byte_level_json(vocabulary, post_processor=post_processor("<|im_end|>"), normalizer={"type": "NFC"})


def spm_json() -> dict[str, Any]:
    vocabulary = Vocabulary.from_metadata(spm_metadata(["▁", "a", "b", "▁a"], [-9, -9, -9, -1]))
    return sentencepiece_json(vocabulary, post_processor=post_processor("<s>"))


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a JSON document; of large ones, a few."""
    found = []
    if isinstance(value, dict | list):
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        for key in keys[:40]:
            found.append((value, key))
            found += places(value[key])
    return found


def use(metadata: dict[str, Any]) -> None:
    vocabulary = Vocabulary.from_metadata(metadata)
    for encoder in (build_encoder(metadata, vocabulary), rebuild_encoder(vocabulary)):
        encoder.encode("a b <|im_end|> é", parse_special=True)


@pytest.mark.parametrize("document", [bpe_json, spm_json])
def test_a_damaged_tokenizer_json(tmp_path: Path, document: Any) -> None:
    generator = random.Random(5)
    refused = 0
    for _ in range(300):
        damaged = document()
        for _ in range(generator.randint(1, 2)):
            container, key = generator.choice(places(damaged))
            if generator.random() < 0.3:
                del container[key]
            else:
                container[key] = generator.choice(_VALUES)
        write(tmp_path, tokenizer__json=json.dumps(damaged).encode())
        try:
            use(ggml_metadata(tmp_path))
        except EdgertError:
            refused += 1
    assert refused > 30


def test_damaged_bytes(tmp_path: Path) -> None:
    generator = random.Random(6)
    whole = {
        "tokenizer__json": json.dumps(bpe_json()).encode(),
        "tokenizer__model": sentencepiece_model(Vocabulary.from_metadata(spm_metadata(["▁", "a"], [0, 0]))),
    }
    for name, data in whole.items():
        for _ in range(150):
            damaged = bytearray(data)
            for _ in range(generator.randint(1, 4)):
                damaged[generator.randrange(len(damaged))] = generator.randrange(256)
            if generator.random() < 0.3:
                del damaged[generator.randrange(len(damaged)) :]
            for path in tmp_path.iterdir():
                path.unlink()
            write(tmp_path, **{name: bytes(damaged)})
            try:
                use(ggml_metadata(tmp_path))
            except EdgertError:
                continue


def test_damaged_configuration(tmp_path: Path) -> None:
    generator = random.Random(7)
    whole = {
        "tokenizer_config__json": {
            "bos_token": {"content": "<s>"},
            "eos_token": "</s>",
            "add_bos_token": True,
            "chat_template": [{"name": "default", "template": "x"}],
            "added_tokens_decoder": {"1": {"content": "<s>", "special": True}},
        },
        "generation_config__json": {"eos_token_id": [2, 3]},
        "config__json": {"vocab_size": 300, "eos_token_id": 2},
        "added_tokens__json": {"<x>": 299},
    }
    write(tmp_path, tokenizer__model=sentencepiece_model(Vocabulary.from_metadata(spm_metadata(["▁", "a"], [0, 0]))))
    for _ in range(300):
        damaged = json.loads(json.dumps(whole))
        container, key = generator.choice(places(damaged))
        container[key] = generator.choice(_VALUES)
        write(tmp_path, **{name: json.dumps(content).encode() for name, content in damaged.items()})
        try:
            use(ggml_metadata(tmp_path))
        except EdgertError:
            continue
