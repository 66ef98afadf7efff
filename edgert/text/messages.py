"""The messages of a chat, checked and put in the form that chat templates expect."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from edgert_models.errors import RequestError

REASONING_NAMES = ("reasoning_content", "thinking", "reasoning")
"""What the text of an assistant's reasoning is called; templates read the first, or the second (gpt-oss, LFM2.5)."""


def checked_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Copies of `messages` with plain text as content and tool arguments as objects.

    A message is `{"role": str, "content": str}`; content may be a list of `{"type": "text", "text": str}`, which are
    joined, and null where an assistant only calls tools. Other keys are passed on. Raises `RequestError`, which names
    the part at fault as `messages[2].content`.
    """
    if isinstance(messages, str | bytes) or not isinstance(messages, Sequence):
        raise _error("messages", "must be a list of messages")
    if not messages:
        raise _error("messages", "must not be empty")
    return [_message(message, f"messages[{place}]") for place, message in enumerate(messages)]


def checked_tools(tools: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]] | None:
    """Copies of OpenAI tools (`{"type": "function", "function": {"name": …}}`); None for none."""
    if tools is None or (isinstance(tools, Sequence) and not tools):
        return None
    if isinstance(tools, str | bytes) or not isinstance(tools, Sequence):
        raise _error("tools", "must be a list of tools")
    result = []
    for place, tool in enumerate(tools):
        name = f"tools[{place}]"
        if not isinstance(tool, Mapping):
            raise _error(name, "must be an object")
        function = tool.get("function")
        if tool.get("type") != "function" or not isinstance(function, Mapping):
            raise _error(name, 'must have "type": "function" and a "function" object')
        if not isinstance(function.get("name"), str) or not function["name"]:
            raise _error(f"{name}.function.name", "must be a string that is not empty")
        result.append(_plain(tool, name))
    return result


def arguments_as_text(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Copies of checked messages with the arguments of tool calls as JSON text, instead of objects."""
    copies: list[dict[str, Any]] = json.loads(json.dumps(list(messages)))
    for message in copies:
        for call in message.get("tool_calls") or ():
            call["function"]["arguments"] = json.dumps(call["function"]["arguments"], ensure_ascii=False)
    return copies


def contents_as_parts(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Copies of checked messages whose contents are lists of one part, as templates of models that see want them."""
    return [
        {**message, "content": [{"type": "text", "text": message["content"]}]}
        if isinstance(message.get("content"), str)
        else message
        for message in messages
    ]


def _message(message: Mapping[str, Any], name: str) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise _error(name, "must be an object")
    role = message.get("role")
    if not isinstance(role, str) or not role:
        raise _error(f"{name}.role", "is missing" if role is None else "must be a string that is not empty")
    result = _plain({key: value for key, value in message.items() if key not in ("content", "tool_calls")}, name)
    thought = next((result[key] for key in REASONING_NAMES if result.get(key) is not None), None)
    if thought is not None:
        result["reasoning_content"] = thought
        result.setdefault("thinking", thought)
    calls = message.get("tool_calls")
    if calls is not None:
        if isinstance(calls, str | bytes) or not isinstance(calls, Sequence):
            raise _error(f"{name}.tool_calls", "must be a list")
        result["tool_calls"] = [_call(call, f"{name}.tool_calls[{place}]") for place, call in enumerate(calls)]
    content = message.get("content")
    if content is None and not (calls and role == "assistant"):
        raise _error(f"{name}.content", "is missing")
    if "content" in message:
        result["content"] = None if content is None else _text(content, f"{name}.content")
    return result


def _text(content: object, name: str) -> str:
    if isinstance(content, str):
        return _encodable(content, name)
    if isinstance(content, bytes) or not isinstance(content, Sequence):
        raise _error(name, "must be a string or a list of text parts")
    texts = []
    for place, part in enumerate(content):
        here = f"{name}[{place}]"
        if not isinstance(part, Mapping):
            raise _error(here, "must be an object")
        if part.get("type") != "text":
            raise _error(f"{here}.type", f"is {part.get('type')!r:.40}; only text is supported")
        if not isinstance(part.get("text"), str):
            raise _error(f"{here}.text", "must be a string")
        texts.append(_encodable(part["text"], f"{here}.text"))
    return "".join(texts)


def _call(call: object, name: str) -> dict[str, Any]:
    """A tool call, its arguments an object: the API has them as JSON text, templates expect the object."""
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(call, Mapping) or not isinstance(function, Mapping):
        raise _error(name, 'must be an object with a "function"')
    if not isinstance(function.get("name"), str) or not function["name"]:
        raise _error(f"{name}.function.name", "must be a string that is not empty")
    arguments = function.get("arguments", {})
    here = f"{name}.function.arguments"
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except (ValueError, RecursionError) as error:
            raise _error(here, f"is not JSON: {error}") from error
    if not isinstance(arguments, Mapping):
        raise _error(here, "must be a JSON object")
    result = _plain(call, name)
    result["function"]["arguments"] = _plain(arguments, here)
    return result


def _plain(value: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A deep copy made of JSON's types."""
    try:
        text = json.dumps(value, allow_nan=False, default=_as_json)
        text.encode("utf-8")
        copy: dict[str, Any] = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise _error(name, f"must be JSON: {error}") from error
    return copy


def _as_json(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def _encodable(text: str, name: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise _error(
            name, f"has a lone surrogate (U+{ord(text[error.start]):04X}) at character {error.start}"
        ) from error
    return text


def _error(name: str, reason: str) -> RequestError:
    return RequestError(f"{name} {reason}", parameter=name)
