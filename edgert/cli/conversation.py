"""A conversation: its messages, its settings, and asking the model."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgert_models.errors import FileFormatError, RequestError

from edgert.cli.sampling import with_setting

if TYPE_CHECKING:
    from edgert import LLM, Chunk, SamplingParams

Message = dict[str, Any]


class Conversation:
    """Messages in OpenAI's form, and the parameters that answers are sampled with."""

    def __init__(self, llm: LLM, params: SamplingParams, system: str | None = None) -> None:
        self.llm = llm
        self.params = params
        self.system = system
        self.turns: list[Message] = []

    @property
    def messages(self) -> list[Message]:
        """What the model is given."""
        head = [{"role": "system", "content": self.system}] if self.system else []
        return head + self.turns

    def ask(self, text: str) -> Iterator[Chunk]:
        """Add the user's message and stream the answer; what has come is kept, also when the reader stops early."""
        self.turns.append({"role": "user", "content": text})
        answered = False
        answer: list[str] = []
        thoughts: list[str] = []
        try:
            for chunk in self.llm.stream_chat(self.messages, self.params):
                answered = True
                answer.append(chunk.text)
                thoughts.append(chunk.reasoning)
                yield chunk
        finally:
            if answered:
                reasoning = {"reasoning_content": "".join(thoughts)} if any(thoughts) else {}
                self.turns.append({"role": "assistant", "content": "".join(answer), **reasoning})
            else:
                self.turns.pop()  # the model never spoke: an error, or a stop before the first token

    def ask_again(self) -> Iterator[Chunk]:
        """Drop the last answer and ask for another."""
        while self.turns and self.turns[-1]["role"] != "user":
            self.turns.pop()
        if not self.turns:
            raise RequestError("there is no answer to give again")
        return self.ask(self.turns.pop()["content"])

    def answer_once(self, text: str, *, as_json: bool = False) -> None:
        """One message, one answer on stdout; the Completion with `as_json`."""
        if not text:
            raise RequestError("the message on stdin is empty", parameter="message")
        if as_json:
            from edgert.cli.console import print_json

            self.turns.append({"role": "user", "content": text})
            print_json(asdict(self.llm.chat(self.messages, self.params)))
            return
        for chunk in self.ask(text):
            sys.stdout.write(chunk.text)
            sys.stdout.flush()
        sys.stdout.write("\n")

    def set(self, name: str, value: str) -> None:
        """Change one sampling parameter by its name, or `system`; RequestError names what is wrong."""
        if name == "system":
            self.system = value or None
            return
        self.params = with_setting(self.params, name, value, others=["system"])

    def save(self, path: Path) -> None:
        """Write the conversation as JSON."""
        content = {"system": self.system, "messages": self.turns}
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def load(self, path: Path) -> None:
        """Read a conversation that `save` wrote; FileFormatError says what is wrong with it."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise FileFormatError(path, f"not JSON: {error}") from None
        turns = content.get("messages") if isinstance(content, dict) else None
        if not isinstance(turns, list) or not all(_is_turn(turn) for turn in turns):
            raise FileFormatError(path, "not a saved conversation", field="messages")
        system = content.get("system")
        if system is not None and not isinstance(system, str):
            raise FileFormatError(path, "must be a text or null", field="system")
        self.system, self.turns = system, turns


def _is_turn(turn: Any) -> bool:
    return (
        isinstance(turn, dict)
        and turn.get("role") in ("user", "assistant", "tool")
        and isinstance(turn.get("content"), str)
    )
