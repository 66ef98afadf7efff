"""One question with its one right answer, and the split into training and held-out data."""

import zlib
from dataclasses import dataclass

HELD_OUT_SHARE = 16  # one key in this many is held out


@dataclass(frozen=True, slots=True)
class Sample:
    """A question and its exact answer.

    `key` is the fact or wording that is tested (the pair of operands, the command before casing and politeness). It
    alone decides on which side of the split a sample lies, so no held-out key is ever trained on in any surface form.
    """

    skill: str
    question: str
    answer: str
    key: str

    @property
    def held_out(self) -> bool:
        """Whether the sample is kept from training."""
        return is_held_out(self.key)


def is_held_out(key: str) -> bool:
    """Content decides, not the seed: training and evaluation draw from disjoint sets whatever their seeds are."""
    return zlib.crc32(key.encode()) % HELD_OUT_SHARE == 0
