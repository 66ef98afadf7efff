"""What llguidance complains of, in one line that makes sense to who asked.

Used by the confined job too, so it imports the standard library only.
"""

from __future__ import annotations

import re

_PLACE = re.compile(r"^(?:at )?\d+\(\d+\): ")
_KEYS = re.compile(r"Unimplemented keys: \[(.*)\]")
_ONE_OF = "oneOf constraints are not supported"
_LONGEST = 300


def plain(error: str) -> str:
    """The reason without places in a grammar that the caller did not write."""
    lines = [line for line in error.splitlines() if line.strip()]
    if not lines:
        return "the grammar cannot be used"
    first = _PLACE.sub("", lines[0]).removeprefix("failed to compile JSON schema: ")
    if keys := _KEYS.search(first):
        return f"the schema has keywords that are not supported: {keys[1].replace(chr(34), '')}"
    if first.startswith(_ONE_OF):
        return "oneOf is supported only where no value can be of two of its schemas; use anyOf"
    if first.startswith("NoExtension"):
        return "nothing can go on with it"
    why = next((line for line in lines if line.startswith("error: ")), None)
    if why is not None:  # of a regular expression, which is shown above it
        return f"the regular expression cannot be used: {why.removeprefix('error: ')}"[:_LONGEST]
    return first[:_LONGEST]
