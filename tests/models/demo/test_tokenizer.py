"""The tokenizer: Qwen2's split, lossless, and the segments' borders are token borders."""

import json
from itertools import islice
from pathlib import Path

import jinja2
import pytest
from demo import tokenizer as made
from demo.corpus.mix import held_out_samples, training_documents, turn
from tokenizers import Tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    made.save(made.build(documents=1000), folder)
    return folder


@pytest.fixture(scope="module")
def tokens(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def test_vocabulary(tokens: Tokenizer) -> None:
    assert tokens.get_vocab_size() == made.VOCABULARY
    assert made.VOCABULARY % 64 == 0
    assert [tokens.token_to_id(text) for text in made.SPECIAL] == [0, 1, 2]


@pytest.mark.parametrize("text", ["Set it to 21°C!", "naïve café 日本 🙂", "a\n\n  b\t c ", "x\u0301 e\u0301", "12345"])
def test_round_trip(tokens: Tokenizer, text: str) -> None:
    assert tokens.decode(tokens.encode(text).ids) == text


def test_digits_stand_alone(tokens: Tokenizer) -> None:
    assert [tokens.id_to_token(index) for index in tokens.encode("12345").ids] == list("12345")


def test_segments_end_where_tokens_end(tokens: Tokenizer) -> None:
    for document in islice(training_documents(9), 300):
        whole = tokens.encode("".join(segment.text for segment in document)).ids
        assert whole == [index for segment in document for index in tokens.encode(segment.text).ids]


def test_template_writes_what_is_trained_on(folder: Path) -> None:
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    template = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(config["chat_template"])
    for sample in held_out_samples("lookup", 10):
        messages = [{"role": "user", "content": sample.question}]
        assert template.render(messages=messages, add_generation_prompt=True) == turn(sample.question)
    system = template.render(messages=[{"role": "system", "content": "Be brief."}], add_generation_prompt=False)
    assert system == "<|im_start|>system\nBe brief.<|im_end|>\n"
