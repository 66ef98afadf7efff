"""A request on its way through the engine, and the events it answers with."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from edgert_models.errors import EdgertError
from numpy.typing import NDArray

from edgert.engine.blocks import ROOT, Table
from edgert.engine.prefixes.shelf import Fetch
from edgert.engine.sampling import Sampler, TokenLogprob
from edgert.engine.states import States
from edgert.engine.windows import Window

CLIENT: ContextVar[str] = ContextVar("client", default="")
"""Whom the request that is made is for: clients take turns. A server sets it; all else is one client."""


class Kind(Enum):
    """What a request wants: new tokens, the logits of every row, or the last hidden value of every row."""

    GENERATE = "generate"
    LOGITS = "logits"
    HIDDEN = "hidden"


class Ending(Enum):
    """Why the engine ended an answer by itself."""

    STOP = "stop"  # the model's end token, or one of stop_token_ids
    COMPLETE = "complete"  # the form that the answer was held to allows nothing more
    LENGTH = "length"  # max_tokens reached, or the context full


@dataclass(frozen=True, slots=True)
class Token:
    """A generated token; `ending` is set on the last. `at` is `time.monotonic()`, in seconds."""

    choice: TokenLogprob
    at: float
    ending: Ending | None = None


@dataclass(frozen=True, slots=True)
class Rows:
    """The result of an evaluation: float32 [tokens, vocabulary], or [tokens, width] of hidden values."""

    values: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Failed:
    """The request ended with an error (CancelledError where it was cancelled); nothing follows."""

    error: EdgertError


Event = Token | Rows | Failed
OnEvent = Callable[[Event], None]
"""Called on the engine's thread for each event, so it must return at once: put into a queue, or `call_soon_threadsafe`.
If it raises, its request is cancelled.
"""


@dataclass(eq=False, slots=True)
class Request:
    """Token ids in, events out. Owners read the first three groups and may `cancel`; the engine keeps the rest."""

    kind: Kind
    tokens: list[int]  # the prompt, and what has been generated, as far as the context holds it
    prompt_tokens: int
    on_event: OnEvent
    _cancel: Callable[[Request], None]
    adapter: int = -1  # that it goes through, -1 for none
    client: str = field(default_factory=CLIENT.get)
    seed: int = 0  # the one in use, also where none was asked for

    submitted_at: float = 0.0  # time.monotonic(), seconds
    started_at: float | None = None  # when its first row was scheduled
    last_at: float | None = None  # when it got its last token
    cached_tokens: int = 0  # prompt tokens that the prefix cache had
    disk_tokens: int = 0  # of these, those that were on disk
    dropped_tokens: int = 0  # left out because the context does not hold them
    guessed_tokens: int = 0  # by speculation, and how many of them were right
    right_guesses: int = 0

    sampler: Sampler | None = None
    stop_ids: frozenset[int] = frozenset()
    limit: int = 0  # tokens, prompt included, at which it ends
    slides: bool = False  # goes on beyond the context
    deadline: float = math.inf  # time.monotonic(), seconds
    history: list[int] = field(init=False)  # the prompt, and all that has been generated: `tokens` until it slides
    table: Table = field(default_factory=Table)
    states: States = field(default_factory=States)
    window: Window = field(default_factory=Window)
    border: int = 0  # a position up to which others have had the same tokens
    computed: int = 0  # positions whose keys and values are in the cache
    fetch: Fetch | None = None  # what is on its way from the disk: until it is there, nothing is computed
    fetches: bool = True  # unless that has failed
    rows: NDArray[np.float32] | None = None
    ended: bool = False

    def __post_init__(self) -> None:
        self.history = self.tokens

    @property
    def root(self) -> int:
        """Where its chain of blocks begins: keys and values of one adapter are no other's."""
        return ROOT if self.adapter < 0 else -1 - self.adapter

    @property
    def remaining(self) -> int:
        """Tokens that have to go through the model before the next one can be chosen."""
        return len(self.tokens) - self.computed

    def cancel(self) -> None:
        """End it at once, from any thread: between two steps of the engine its blocks are free again.

        Its last event is Failed with a CancelledError, unless it has ended already.
        """
        self._cancel(self)
