"""What blocks are called that outlive a process."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence


def following_name(name: bytes, tokens: Sequence[int]) -> bytes:
    """What a block is called that follows the one of that name: it stands for all tokens from the beginning on, and for
    what computed them, which the name of the beginning stands for.
    """
    return hashlib.blake2b(name + array("q", tokens).tobytes(), digest_size=32).digest()
