"""What to do with more tokens than the context holds. Unless the user has chosen otherwise, that is an error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

Overflow = Literal["error", "truncate-middle", "sliding"]
"""`truncate-middle` leaves out tokens in the middle of a prompt that is too long. `sliding` does so too, and lets an
answer go on beyond the context: what is old is left out, and the rest computed again.
"""
OVERFLOWS: tuple[str, ...] = get_args(Overflow)


def room_for_prompt(policy: str, asked: int | None, context: int) -> int:
    """Tokens that a prompt may have, of an answer of `asked` tokens (None: until the model stops), which has a quarter
    of the context at most where it may go on beyond it; less than 1 where there is no room at all.
    """
    quarter = max(1, context // 4)
    if policy == "error":
        return context - (1 if asked is None else asked)
    if policy == "sliding":
        return context - min(asked or quarter, quarter)
    return context - (asked or quarter)


def without_middle(tokens: Sequence[int], room: int) -> list[int]:
    """The first and the last of them, `room` in all: the system's message is at the beginning, the question at the
    end.
    """
    first = room // 2
    return [*tokens[:first], *tokens[len(tokens) - (room - first) :]]


def oldest(prompt: int, context: int) -> tuple[int, int]:
    """Of a full context the stretch to leave out, from and to: half of what follows the beginning of the prompt, which
    is kept: attention leans on the first tokens (Xiao et al. 2023, arXiv 2309.17453).
    """
    kept = min(prompt, context // 4)
    return kept, kept + max(1, (context - kept) // 2)
