"""Requests of the server's own routes, which follow llama.cpp's."""

from __future__ import annotations

from typing import Any

from edgert import LLM
from edgert.server.openai.requests import ChatTemplateFields
from edgert.server.strict import Strict, TokenId


class OfModel(Strict):
    """What may name a model, and else means the first."""

    model: str | None = None


class TokenizeRequest(OfModel):
    """POST /tokenize."""

    content: str
    add_special: bool = False
    parse_special: bool = True
    with_pieces: bool = False

    def tokens(self, llm: LLM) -> list[Any]:
        """Ids; with pieces objects of id and text, or bytes where those are not whole characters."""
        ids = llm.tokenizer.encode(self.content, add_special=self.add_special, parse_special=self.parse_special)
        if not self.with_pieces:
            return ids
        return [{"id": token, "piece": _piece(llm.tokenizer.token_bytes(token))} for token in ids]


class DetokenizeRequest(OfModel):
    """POST /detokenize."""

    tokens: list[TokenId]


class TemplateRequest(ChatTemplateFields, OfModel):
    """POST /apply-template."""

    add_generation_prompt: bool = True

    def prompt(self, llm: LLM) -> str:
        """The text that the model would be given."""
        conversation = self.conversation()
        return llm.render(
            conversation.messages,
            tools=conversation.tools,
            add_generation_prompt=self.add_generation_prompt,
            chat_template_kwargs=conversation.variables,
        )


def _piece(raw: bytes) -> str | list[int]:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return list(raw)
