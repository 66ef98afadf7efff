"""A text as windows of tokens."""

import json
import re
from pathlib import Path

import pytest
from edgert_models.errors import FileFormatError, RequestError

from edgert.calibration import tokens as module
from edgert.calibration.tokens import Tokens, pieces
from edgert.text import Tokenizer
from tests.edgert.tiny_gguf import tokenizer_entries

TEXT = "hello world\n  indented\n\nthe rest: ünïcode, 日本語 and more\n" * 20


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_gguf(tokenizer_entries())


def windows(path: Path, tokenizer: Tokenizer, **options: object) -> list[list[int]]:
    with Tokens(path, tokenizer, **{"window": 32, **options}) as tokens:
        return tokens.read(0, tokens.windows)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text(TEXT)
    return tmp_path / "text.txt"


def test_windows_follow_one_another_and_begin_with_the_begin_token(text: Path, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(TEXT)
    found = windows(text, tokenizer)
    assert len(found) == len(ids) // 32
    for i, window in enumerate(found):
        assert window == [tokenizer.bos_id, *ids[32 * i + 1 : 32 * i + 32]]
    assert windows(text, tokenizer, most_windows=2) == found[:2]
    with Tokens(text, tokenizer, window=32) as tokens:
        assert tokens.read(3, 5) == found[3:5]
    plain = Tokenizer.from_gguf({**tokenizer_entries(), "tokenizer.ggml.add_bos_token": False})
    assert windows(text, plain)[1] == plain.encode(TEXT)[32:64]


def test_pieces_are_the_text(text: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, expected = list(pieces(text)), windows(text, tokenizer)
    assert whole == [TEXT]
    for size in (7, 50, 333):  # characters of several bytes are cut through
        monkeypatch.setattr(module, "PIECE", size)
        parts = list(pieces(text))
        assert len(parts) > 2
        assert "".join(parts) == TEXT
    assert all(re.match(r"\S", part) for part in parts)
    assert windows(text, tokenizer) == expected
    with Tokens(text, tokenizer, window=32) as cut:
        monkeypatch.undo()
        with Tokens(text, tokenizer, window=32) as uncut:
            assert cut.sha256 == uncut.sha256


def test_records(text: Path, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = TEXT.splitlines(keepends=True)
    records = tmp_path / "text.jsonl"
    records.write_text("".join(json.dumps({"text": line, "more": 1}) + "\n" for line in lines) + "\n")
    assert windows(records, tokenizer) == windows(text, tokenizer)
    monkeypatch.setattr(module, "PIECE", 60)
    assert "".join(pieces(records)) == TEXT
    assert len(list(pieces(records))) > 10
    for bad in ('{"text": 3}', "[1]", "{", '{"prompt": "x"}'):
        records.write_text('{"text": "x"}\n' + bad)
        message = f'{records}, line 2: {bad!r} is no JSON object with a "text"'
        with pytest.raises(RequestError, match=re.escape(message)):
            list(pieces(records))


def test_control_tokens_are_text_unless_asked_for(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("<|im_end|>" * 20)
    end = tokenizer.encode("<|im_end|>", add_special=False)
    assert end[0] not in windows(tmp_path / "t.txt", tokenizer)[0]
    assert windows(tmp_path / "t.txt", tokenizer, window=10, parse_special=True)[0][1:] == end * 9


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the text is empty; take a longer one or --window"),
        (b"hello", "tokens, fewer than a window of 32; take a longer one or --window"),
        (b"fine \xff", "is no UTF-8 text (byte 5)"),
        (b"cut \xe6\x97", "is no UTF-8 text (byte 4)"),
        (b"x" * 100 + b"\xe6\x97x", "is no UTF-8 text (byte 100)"),
    ],
)
def test_bad_texts(
    data: bytes, message: str, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t.txt").write_bytes(data)
    for size in (16, 101, 4096):
        monkeypatch.setattr(module, "PIECE", size)
        with pytest.raises(RequestError, match=re.escape(message)) as caught:
            windows(tmp_path / "t.txt", tokenizer)
        assert str(tmp_path / "t.txt") in str(caught.value)


def test_no_such_text(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="cannot be opened: No such file"):
        windows(tmp_path / "none", tokenizer)
    with pytest.raises(FileFormatError, match="is a folder"):
        windows(tmp_path, tokenizer)
    (tmp_path / "t.txt").write_text(TEXT)
    with pytest.raises(RequestError, match="a window of 7 tokens is too small; 8 is the least"):
        windows(tmp_path / "t.txt", tokenizer, window=7)
