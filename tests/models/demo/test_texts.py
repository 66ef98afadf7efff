"""The texts to calibrate on and to judge by."""

import re

from demo.corpus.text import held_out_text, training_text
from demo.texts import calibration, held_out, written

_QUESTION = re.compile(r"<\|im_start\|>user\n(.*?)<\|im_end\|>", re.DOTALL)


def test_a_seed_gives_the_same_text_and_another_another() -> None:
    first, again, other = (written(held_out(seed), 5_000) for seed in (3, 3, 4))
    assert first == again != other
    assert written(calibration(3), 5_000) != written(calibration(4), 5_000)


def test_a_text_ends_with_the_piece_that_reaches_its_length() -> None:
    assert written(iter(["abc", "def", "ghi"]), 4) == "abcdef"


def test_the_texts_share_no_question_and_no_running_text() -> None:
    trained, judged = written(calibration(1), 100_000), written(held_out(1), 30_000)
    asked = set(_QUESTION.findall(judged))
    assert len(asked) > 50
    assert not asked & set(_QUESTION.findall(trained))
    pieces = [piece.rpartition("<|im_end|>\n")[2] for piece in judged.split("<|endoftext|>")[:-1]]
    assert pieces
    assert all(any(piece in text for text in held_out_text()) for piece in pieces)
    assert not any(piece in text for text in training_text() for piece in pieces)
