"""Tokenizers of checkpoints in the converted file."""

import json
from pathlib import Path

import numpy as np
import pytest
from edgert_models.errors import ConversionError
from edgert_quant.convert import convert
from edgert_quant.gguf import GgufFile
from edgert_quant.vocabulary import TokenType, Vocabulary, build_encoder, rebuild_encoder
from tokenizers import Tokenizer

from tests.quant.convert.checkpoints import load, save
from tests.quant.vocabulary.checkpoints import byte_level_json
from tests.quant.vocabulary.tiny import bpe_metadata
from tests.support.golden import FOLDER

TEXT = "Turn  the lights off, please! 12 + 30 = 42; naïve café, 你好 🦙\n<|im_start|>user"


def checkpoint(tmp_path: Path, *, rows: int = 0, **changes: object) -> Path:
    """A golden model with a byte-level tokenizer, and so many more rows in its embedding than that has tokens."""
    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocabulary = Vocabulary.from_metadata(bpe_metadata(control=control, pre="qwen2"))
    tensors = load(FOLDER / "qwen3moe")
    config = json.loads((FOLDER / "qwen3moe" / "config.json").read_text()) | {"vocab_size": len(vocabulary) + rows}
    rng = np.random.default_rng(0)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = rng.standard_normal((len(vocabulary) + rows, 64), dtype=np.float32)
    folder = save(tmp_path / "model", tensors, config)
    (folder / "tokenizer.json").write_text(json.dumps(byte_level_json(vocabulary, **changes)))
    settings = {"eos_token": "<|im_end|>", "bos_token": None, "add_bos_token": False, "chat_template": "{{ messages }}"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def test_tokenizer_is_in_the_file(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, rows=5)
    report = convert(folder, tmp_path / "model.gguf", type="bf16")
    assert not report.warnings
    with GgufFile.open(tmp_path / "model.gguf") as file:
        vocabulary = Vocabulary.from_metadata(file.metadata)
        assert len(vocabulary) == file.tensors["token_embd.weight"].shape[0]
        assert len(vocabulary.of_type(TokenType.UNUSED)) == 5
        assert file.metadata.string("tokenizer.ggml.pre") == "qwen2"
        assert file.metadata.string("tokenizer.chat_template") == "{{ messages }}"
        assert list(file.metadata)[-1].startswith(("tokenizer.", "edgert."))
        wanted = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(TEXT, add_special_tokens=False).ids
        for encoder in (build_encoder(file.metadata, vocabulary), rebuild_encoder(vocabulary)):
            assert encoder.encode(TEXT, parse_special=True) == wanted


def test_tokenizers_survive_requantizing(tmp_path: Path) -> None:
    convert(checkpoint(tmp_path), tmp_path / "bf16.gguf", type="bf16")
    convert(tmp_path / "bf16.gguf", tmp_path / "f32.gguf", type="f32")
    convert(tmp_path / "f32.gguf", tmp_path / "again.gguf", type="bf16")
    assert (tmp_path / "again.gguf").read_bytes() == (tmp_path / "bf16.gguf").read_bytes()


def test_a_tokenizer_that_gguf_cannot_describe(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, normalizer={"type": "Lowercase"})
    with pytest.raises(ConversionError, match=r"do not agree.*; convert with parity=False to let that pass"):
        convert(folder, tmp_path / "model.gguf", type="bf16")
    assert not (tmp_path / "model.gguf").exists()
    convert(folder, tmp_path / "model.gguf", type="bf16", parity=False)


def test_more_tokens_than_rows(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    tensors = load(folder)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = tensors[name][:-2]
    save(folder, tensors, config | {"vocab_size": config["vocab_size"] - 2})
    with pytest.raises(ConversionError, match="token"):
        convert(folder, tmp_path / "model.gguf", type="bf16")
