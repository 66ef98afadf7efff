"""Special tokens that a message spells out are text, and must stay it through template and tokenizer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

_FIRST, _LAST = 0x100000, 0x10FFFD  # plane 16: for private use


def hide_special(
    messages: Sequence[dict[str, Any]], special: re.Pattern[str]
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Messages with every special token in them replaced by a character that they do not have, and what each means.

    `messages` are as `checked_messages` gives them. What the assistant said is left as it is: templates look for the
    tags of its reasoning.
    """
    fields = [
        (place, key, message[key])
        for place, message in enumerate(messages)
        if message["role"] != "assistant"
        for key in ("content", "name")
        if isinstance(message.get(key), str)
    ]
    found = sorted({name for *_, text in fields for name in special.findall(text)})
    taken = set("".join(text for *_, text in fields)) if found else set()
    free = (chr(code) for code in range(_FIRST, _LAST) if chr(code) not in taken)
    characters = dict(zip(found, free, strict=False))
    hidden = [dict(message) for message in messages]
    for place, key, text in fields if found else ():
        hidden[place][key] = special.sub(lambda match: characters[match[0]], text)
    return hidden, {character: name for name, character in characters.items()}
