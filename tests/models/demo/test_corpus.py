"""The corpus: deterministic, split without overlap, and right."""

import json
from itertools import islice
from random import Random

import pytest
from demo.corpus import arithmetic, conversion
from demo.corpus.catalogue import DEVICES
from demo.corpus.mix import SKILLS, draw, held_out_samples, training_documents
from demo.corpus.text import held_out_text, training_text


def questions(documents: list[str]) -> set[str]:
    """The user's turns in rendered documents."""
    return {part.split("<|im_end|>")[0] for text in documents for part in text.split("<|im_start|>user\n")[1:]}


def rendered(seed: int, count: int) -> list[str]:
    return ["".join(segment.text for segment in document) for document in islice(training_documents(seed), count)]


def test_same_seed_same_documents() -> None:
    assert rendered(3, 200) == rendered(3, 200)
    assert rendered(3, 200) != rendered(4, 200)


def test_held_out_samples_repeat() -> None:
    assert held_out_samples("devices", 50) == held_out_samples("devices", 50)
    assert held_out_samples("devices", 50) != held_out_samples("devices", 50, seed=1)


def test_no_held_out_question_is_trained_on() -> None:
    trained = questions(rendered(0, 5000))
    assert len(trained) > 3000
    for skill in SKILLS:
        held_out = {sample.question for sample in held_out_samples(skill, 200)}
        assert len(held_out) >= 150, skill
        assert held_out.isdisjoint(trained), skill


def test_text_is_split() -> None:
    assert set(training_text()).isdisjoint(held_out_text())
    assert sum(map(len, held_out_text())) > 20_000


@pytest.mark.parametrize("skill", SKILLS)
def test_both_sides_have_samples(skill: str) -> None:
    rng = Random(0)
    assert not draw(rng, skill).held_out
    assert draw(rng, skill, held_out=True).held_out


def test_arithmetic_is_right() -> None:
    rng = Random(1)
    for _ in range(2000):
        expression, result = arithmetic.sample(rng).answer.split(" = ")
        a, operator, b = expression.split()
        left, right, value = int(a), int(b), int(result)
        assert {"+": left + right, "-": left - right, "*": left * right, "/": left / max(right, 1)}[operator] == value


def test_conversions_are_exact() -> None:
    for rule in conversion.RULES:
        back = next(other for other in conversion.RULES if (other.source, other.target) == (rule.target, rule.source))
        for amount in rule.amounts:
            if rule.convert(amount) in back.amounts:
                assert back.convert(rule.convert(amount)) == amount


def test_actions_parse_and_are_known() -> None:
    known = {device.name: {action.name for action in device.actions} for device in DEVICES}
    rng = Random(2)
    for _ in range(2000):
        action = json.loads(draw(rng, "devices").answer.split("\n")[1])
        assert action["action"] in known[action["device"]]
        assert set(action) <= {"device", "zone", "action", "value"}


def test_lookups_are_in_the_table() -> None:
    rng = Random(3)
    for _ in range(1000):
        sample = draw(rng, "lookup")
        if "can't find" in sample.answer:
            assert sample.answer.split("find ")[1].split(" in the")[0].lower() in sample.question.lower()
        else:
            words = sample.answer.rstrip(".").replace("degrees", "").split()
            assert any(word in sample.question for word in words if word[0].isdigit())
