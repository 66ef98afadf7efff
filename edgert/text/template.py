"""Chat templates: from a list of messages to the prompt that a model was trained on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgert_models.errors import RequestError, TemplateError

from edgert.confined import ConfinedProcess
from edgert.text.messages import arguments_as_text, checked_messages, checked_tools, contents_as_parts
from edgert.text.tokenizer import Tokenizer

TEMPLATE_KEY = "tokenizer.chat_template"
"""The GGUF key of a model's chat template; `.NAME` after it gives further ones."""

_PROBE = "probe"
_JOB = Path(__file__).with_name("template_job.py")
_MISSING = "the model has no chat template; give one with --chat-template FILE, or complete a plain prompt instead"


def template_names(metadata: Mapping[str, object]) -> list[str]:
    """The names of a GGUF file's chat templates, `default` for the one without."""
    names = [key.removeprefix(TEMPLATE_KEY) for key in metadata if key.startswith(TEMPLATE_KEY)]
    return sorted(name.removeprefix(".") or "default" for name in names if name[:1] in ("", "."))


class ChatTemplate:
    """A Jinja chat template, rendered as Hugging Face transformers does, in a process of its own.

    `source` is the template, `tools_source` one to use instead when tools are given. Limits: `timeout` in seconds of
    wall time for one render, `max_output` and `max_memory` in bytes. Safe to use from several threads.
    """

    def __init__(
        self,
        source: str | None,
        *,
        bos_token: str = "",
        eos_token: str = "",
        tools_source: str | None = None,
        timeout: float = 2.0,
        max_output: int = 4 << 20,
        max_memory: int = 512 << 20,
    ) -> None:
        if not source:
            raise TemplateError(_MISSING)
        self.source = source
        self._tools_source = tools_source
        self._parts: dict[str, bool] = {}
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self._worker = ConfinedProcess(
            _JOB,
            ("jinja2", "markupsafe"),
            does="renders chat templates",
            error=TemplateError,
            timeout=timeout,
            max_output=max_output,
            max_memory=max_memory,
        )

    @property
    def sources(self) -> tuple[str, ...]:
        """The templates that may be used: the one for requests with tools first."""
        return (self._tools_source, self.source) if self._tools_source else (self.source,)

    @classmethod
    def from_gguf(
        cls, metadata: Mapping[str, object], tokenizer: Tokenizer, *, name: str | None = None, **limits: Any
    ) -> ChatTemplate:
        """The chat template of a GGUF file, or the one called `name` of several.

        Raises `TemplateError` where there is none. A model's template called "tool_use" serves requests with tools.
        """
        key = TEMPLATE_KEY if name in (None, "default") else f"{TEMPLATE_KEY}.{name}"
        source, tools_source = metadata.get(key), metadata.get(f"{TEMPLATE_KEY}.tool_use")
        if name is not None and source is None:
            known = ", ".join(template_names(metadata)) or "none"
            raise TemplateError(f"the model has no chat template called {name!r}; it has {known}")
        return cls(
            source if isinstance(source, str) else None,
            bos_token=tokenizer.bos_token,
            eos_token=tokenizer.eos_token,
            tools_source=tools_source if isinstance(tools_source, str) and name is None else None,
            **limits,
        )

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> str:
        """The prompt for `messages`; `variables` are passed to the template (`enable_thinking=False`, …).

        Encode it with `add_special=False`: templates write the begin token themselves. Raises `RequestError` naming
        `messages[i]…` for malformed messages, `TemplateError` for a template that fails or overruns its limits.
        """
        context: dict[str, Any] = {
            **self._tokens,
            "documents": None,
            **variables,
            "messages": checked_messages(messages),
            "tools": checked_tools(tools),
            "add_generation_prompt": bool(add_generation_prompt),
        }
        try:
            json.dumps(variables)
        except (TypeError, ValueError, RecursionError) as error:
            raise RequestError(f"template variables must be JSON: {error}", parameter="chat_template_kwargs") from error
        source = self._tools_source if tools and self._tools_source else self.source
        if self._wants_parts(source):
            context["messages"] = contents_as_parts(context["messages"])
        try:
            return self._render(source, context)
        except TemplateError:
            # Some templates (DeepSeek's own) add arguments to text, and so want them as the JSON that the API has.
            as_text = arguments_as_text(context["messages"])
            if as_text == context["messages"]:
                raise
            try:
                return self._render(source, {**context, "messages": as_text})
            except TemplateError:
                pass
            raise

    def _wants_parts(self, source: str) -> bool:
        """Whether the template shows contents only as lists of parts."""
        if source not in self._parts:
            asked: list[dict[str, Any]] = [{"role": "user", "content": _PROBE}]
            self._parts[source] = (
                "type" in source  # of a part
                and not self._shows(source, asked)
                and self._shows(source, contents_as_parts(asked))
            )
        return self._parts[source]

    def _shows(self, source: str, messages: list[dict[str, Any]]) -> bool:
        context = {**self._tokens, "messages": messages, "tools": None, "documents": None}
        try:
            return _PROBE in self._render(source, context)
        except TemplateError:
            return False

    def _render(self, source: str, context: dict[str, Any]) -> str:
        answer = self._worker.ask({"source": source, "context": context})
        if "text" not in answer:
            raise TemplateError(f"the chat template failed: {answer['error']}")
        return str(answer["text"])

    def close(self) -> None:
        """End the rendering process; a later render starts another."""
        self._worker.close()

    def __enter__(self) -> ChatTemplate:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
