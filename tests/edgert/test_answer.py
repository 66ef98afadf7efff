from collections.abc import Iterable
from pathlib import Path

import pytest
from edgert_models.errors import CancelledError
from edgert_quant.gguf import GgufFile

from edgert.answer import Answer
from edgert.completion import Chunk
from edgert.engine.params import SamplingParams
from edgert.engine.request import Ending, Failed, Kind, Request, Token
from edgert.engine.sampling import TokenLogprob
from edgert.text import Tokenizer
from tests.edgert.tiny_gguf import tokenizer_entries, write_tiny


@pytest.fixture(scope="module")
def tokenizer(tiny_path: Path) -> Tokenizer:
    with GgufFile.open(tiny_path) as file:
        return Tokenizer.from_gguf(file.metadata)


class Cancellations(list[Request]):
    def __call__(self, request: Request) -> None:
        self.append(request)


def answer(
    tokenizer: Tokenizer,
    tokens: Iterable[int],
    *,
    stop: tuple[str, ...] = (),
    prompt: int = 1,
    last: Ending | None = None,
) -> tuple[Answer, list[Chunk], Cancellations]:
    """An answer fed with these tokens, one a second; `last` ends it."""
    cancelled = Cancellations()
    request = Request(Kind.GENERATE, [prompt], 1, lambda event: None, cancelled)
    request.submitted_at, request.started_at = 8.0, 9.0
    made = Answer(request, SamplingParams(stop=stop), tokenizer)
    chunks = []
    ids = list(tokens)
    for place, token in enumerate(ids):
        chunk = made.push(Token(TokenLogprob(token, 0.0), 10.0 + place, last if place == len(ids) - 1 else None))
        if chunk is not None:
            chunks.append(chunk)
        if made.finished:
            break
    return made, chunks, cancelled


def test_characters_are_never_split(tokenizer: Tokenizer) -> None:
    raw = "aé€😀".encode()  # one byte a token
    made, chunks, _ = answer(tokenizer, byte_ids(raw), last=Ending.LENGTH)
    assert [chunk.text for chunk in chunks] == ["a", "é", "€", "😀"]
    assert [len(chunk.token_ids) for chunk in chunks] == [1, 2, 3, 4]
    assert made.completion().text == "aé€😀"


def test_an_unfinished_character_is_replaced_at_the_end(tokenizer: Tokenizer) -> None:
    made, chunks, _ = answer(tokenizer, byte_ids("a€".encode()[:-1]), last=Ending.LENGTH)
    assert [chunk.text for chunk in chunks] == ["a", "\ufffd"]
    assert made.completion().finish_reason == "length"


def test_a_stop_text_across_tokens_is_held_back_and_ends_the_request(tokenizer: Tokenizer) -> None:
    made, chunks, cancelled = answer(tokenizer, byte_ids(b"one STOP two"), stop=("STOP",))
    assert "".join(chunk.text for chunk in chunks) == "one "
    completion = made.completion()
    assert (completion.text, completion.finish_reason, completion.stop) == ("one ", "stop", "STOP")
    assert completion.usage.completion_tokens == len(b"one STOP")
    assert len(cancelled) == 1


def test_what_was_held_back_is_given_when_it_was_no_stop_text(tokenizer: Tokenizer) -> None:
    made, chunks, cancelled = answer(tokenizer, byte_ids(b"a ST"), stop=("STOP",), last=Ending.LENGTH)
    assert [chunk.text for chunk in chunks] == ["a", " ", "ST"]
    assert made.completion().stop is None
    assert cancelled == []


def test_a_stop_text_may_show_at_the_end_only(tokenizer: Tokenizer) -> None:
    # "ab" could become "abc" until the answer ends; then it is "a" and the stop text "b".
    made, _, _ = answer(tokenizer, byte_ids(b"ab"), stop=("abc", "b"), last=Ending.LENGTH)
    completion = made.completion()
    assert (completion.text, completion.finish_reason, completion.stop) == ("a", "stop", "b")


def test_the_end_token_is_no_text(tokenizer: Tokenizer) -> None:
    end = next(iter(tokenizer.stop_ids))
    made, chunks, _ = answer(tokenizer, [*byte_ids(b"a"), end], last=Ending.STOP)
    assert [(chunk.text, chunk.finish_reason) for chunk in chunks] == [("a", None), ("", "stop")]
    completion = made.completion()
    assert completion.stop == end
    assert completion.token_ids[-1] == end


def test_control_tokens_are_no_text(tokenizer: Tokenizer) -> None:
    begin = tokenizer.encode("<|im_start|>", add_special=False)
    made, _, _ = answer(tokenizer, [*byte_ids(b"a"), *begin, *byte_ids(b"b")], last=Ending.LENGTH)
    assert made.completion().text == "ab"


def test_clocks(tokenizer: Tokenizer) -> None:
    timings = answer(tokenizer, byte_ids(b"abcd"), last=Ending.LENGTH)[0].completion().timings
    assert (timings.queue, timings.prefill, timings.decode, timings.time_to_first_token) == (1.0, 1.0, 3.0, 2.0)
    assert (timings.prefill_tokens_per_second, timings.decode_tokens_per_second) == (1.0, 1.0)


def test_an_error_is_raised(tokenizer: Tokenizer) -> None:
    made, _, _ = answer(tokenizer, [])
    with pytest.raises(CancelledError, match="gone"):
        made.push(Failed(CancelledError("gone")))


def byte_ids(raw: bytes) -> list[int]:
    """Token ids of the tiny vocabulary, whose first 256 tokens are the bytes."""
    return list(raw)


def sentencepiece_entries() -> dict[str, object]:
    words = ["<unk>", "<s>", "</s>", "▁hello", "▁", "h", "e", "l", "o"]
    entries = {key: value for key, value in tokenizer_entries(None).items() if "tokens" not in key}
    return {
        **{key: value for key, value in entries.items() if "merges" not in key and ".pre" not in key},
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": words,
        "tokenizer.ggml.scores": [0.0, 0.0, 0.0, -1.0, -2.0, -3.0, -3.0, -3.0, -3.0],
        "tokenizer.ggml.token_type": [2, 3, 3, 1, 1, 1, 1, 1, 1],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }


def test_the_space_before_a_first_word_is_text_only_where_it_continues_one(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "spm.gguf", tokenizer=sentencepiece_entries())
    with GgufFile.open(path) as file:
        spm = Tokenizer.from_gguf(file.metadata)
    assert answer(spm, [3, 3], prompt=1, last=Ending.LENGTH)[0].completion().text == "hello hello"
    assert answer(spm, [3, 3], prompt=3, last=Ending.LENGTH)[0].completion().text == " hello hello"
