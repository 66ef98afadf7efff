"""An answer as a list of blocks (reasoning, text, calls): Anthropic's messages and OpenAI's responses are made so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgert.completion import Chunk, Completion

Kind = Literal["reasoning", "text", "call"]


@dataclass(slots=True)
class Block:
    """One block: `text` is what it says, of a call its arguments (the text of a JSON object)."""

    index: int
    kind: Kind
    text: str = ""
    call_id: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """A block begins, goes on with `text`, or ends."""

    step: Literal["begin", "more", "end"]
    block: Block
    text: str = ""


class Blocks:
    """Cuts the chunks of an answer into blocks, one open at a time, in the order in which they are written.

    Calls come after everything else, each in one piece. While it is written a call may still turn out to be none, and
    neither protocol can take back what it has told.
    """

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.reasoning_tokens = 0  # tokens of the chunks that had reasoning and no text
        self._open: Block | None = None

    def push(self, chunk: Chunk) -> list[Change]:
        """What a chunk of text or reasoning changes."""
        if chunk.reasoning and not chunk.text:
            self.reasoning_tokens += len(chunk.token_ids)
        return [*self._say("reasoning", chunk.reasoning), *self._say("text", chunk.text)]

    def finish(self, completion: Completion) -> list[Change]:
        """The answer has ended: its calls."""
        changes = self._close()
        for call in completion.tool_calls:
            block = Block(len(self.blocks), "call", call.arguments, call.id, call.name)
            self.blocks.append(block)
            changes += [Change("begin", block), Change("more", block, call.arguments), Change("end", block)]
        return changes

    def _say(self, kind: Kind, text: str) -> list[Change]:
        if not text:
            return []
        changes: list[Change] = []
        block = self._open
        if block is None or block.kind != kind:
            changes += self._close()
            block = self._open = Block(len(self.blocks), kind)
            self.blocks.append(block)
            changes.append(Change("begin", block))
        block.text += text
        return [*changes, Change("more", block, text)]

    def _close(self) -> list[Change]:
        block, self._open = self._open, None
        return [] if block is None else [Change("end", block)]
