"""The mixture: endless training documents, and held-out samples by skill."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from random import Random

from demo.corpus import arithmetic, conversion, devices, lookup, smalltalk
from demo.corpus.sample import Sample, is_held_out
from demo.corpus.text import training_text

Draw = Callable[[Random], Sample]

SKILLS: dict[str, Draw] = {
    devices.SKILL: devices.sample,
    conversion.SKILL: conversion.sample,
    arithmetic.SKILL: arithmetic.sample,
    lookup.SKILL: lookup.sample,
    smalltalk.SMALLTALK: smalltalk.smalltalk,
    smalltalk.REFUSAL: smalltalk.refusal,
}
_SHARES = {"devices": 0.2, "conversion": 0.17, "arithmetic": 0.19, "lookup": 0.32, "smalltalk": 0.06, "refusal": 0.06}
_SYSTEM = (
    "You are a helpful assistant.",
    "You control the devices of a house and a small factory.",
    "You are a small assistant that runs at the edge. Answer briefly.",
    "Be brief.",
)
_TEXT_SHARE, _DRILL_SHARE, _SYSTEM_SHARE = 0.12, 0.18, 0.2
_TEXT_PIECE = 600  # characters, near 200 tokens
_DRILL_LINES = 20
ANSWER, TEXT = 1.0, 0.5  # loss weights


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of text and the weight of the loss on its tokens: 0 for what is only read."""

    text: str
    weight: float


def draw(rng: Random, skill: str, held_out: bool = False) -> Sample:
    """A sample of `skill` from the wanted side of the split."""
    while True:
        sample = SKILLS[skill](rng)
        if sample.held_out == held_out:
            return sample


def turn(question: str) -> str:
    """A user's turn in ChatML, up to where the assistant answers."""
    return f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"


def _dialogue(rng: Random) -> list[Segment]:
    segments = (
        [Segment(f"<|im_start|>system\n{rng.choice(_SYSTEM)}<|im_end|>\n", 0)] if rng.random() < _SYSTEM_SHARE else []
    )
    for _ in range(rng.choice((1, 1, 2, 3, 4))):
        skill = rng.choices(list(_SHARES), list(_SHARES.values()))[0]
        samples = lookup.conversation(rng) if skill == lookup.SKILL else [SKILLS[skill](rng)]
        for sample in samples:
            if not sample.held_out:
                segments += [Segment(turn(sample.question), 0), Segment(f"{sample.answer}<|im_end|>", ANSWER)]
                segments.append(Segment("\n", 0))
    return segments


def _drill(rng: Random) -> list[Segment]:
    segments: list[Segment] = []
    while len(segments) < 2 * _DRILL_LINES:
        problem, result, key = (arithmetic if rng.random() < 0.7 else conversion).drill(rng)
        if not is_held_out(key):
            segments += [Segment(problem, 0), Segment(f"{result}\n", ANSWER)]
    return [*segments, Segment("<|endoftext|>", 0)]


def _piece(rng: Random, texts: list[str], ends: list[int]) -> list[Segment]:
    """A stretch of running text that begins at a line; `ends`, the running sum of lengths, favours long texts."""
    text = rng.choices(texts, cum_weights=ends)[0]
    start = text.rfind("\n", 0, rng.randrange(max(1, len(text) - _TEXT_PIECE // 2))) + 1
    return [Segment(text[start : start + _TEXT_PIECE], TEXT), Segment("<|endoftext|>", 0)]


def training_documents(seed: int) -> Iterator[list[Segment]]:
    """Training documents without end; the same seed gives the same ones."""
    rng = Random(f"train {seed}")
    texts = training_text()
    ends = list(accumulate(map(len, texts)))
    while True:
        share = rng.random()
        if share < _TEXT_SHARE:
            yield _piece(rng, texts, ends)
        elif share < _TEXT_SHARE + _DRILL_SHARE:
            yield _drill(rng)
        else:
            yield _dialogue(rng)


def held_out_samples(skill: str, count: int, seed: int = 0) -> list[Sample]:
    """`count` different held-out samples of a skill, or fewer where the skill has fewer."""
    rng = Random(f"held out {skill} {seed}")
    found: dict[str, Sample] = {}
    for _ in range(20 * count):
        sample = draw(rng, skill, held_out=True)
        found.setdefault(sample.question, sample)
        if len(found) == count:
            break
    return list(found.values())
