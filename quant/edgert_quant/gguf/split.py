"""Models split over several files, `NAME-00001-of-0000N.gguf`, as llama.cpp's `gguf-split` writes them.

Each shard has `split.no` (from 0), `split.count` and `split.tensors.count` (of the whole set); the first one has the
metadata of the model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgert_models.errors import FileFormatError

from edgert_quant.gguf import layout
from edgert_quant.gguf.metadata import GgufMetadata

_NAME = re.compile(r"(?s)(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


@dataclass(frozen=True)
class Split:
    """A set of `count` shards with `tensor_count` tensors in all (None where the file does not say)."""

    count: int
    tensor_count: int | None

    def check_shard(self, number: int, metadata: GgufMetadata) -> None:
        """`FileFormatError` unless these are the metadata of shard `number` (from 0) of this set."""
        found = metadata.integer("split.no", minimum=0)
        if found != number:
            metadata.fail("split.no", f"is {found} in shard {number + 1} of {self.count}, where {number} belongs")
        count = metadata.integer("split.count", minimum=0)
        if count != self.count:
            metadata.fail("split.count", f"is {count}, and {self.count} in the first shard")

    def check_tensor_count(self, found: int, metadata: GgufMetadata) -> None:
        """`FileFormatError` unless all shards together have the tensors they should."""
        if self.tensor_count is not None and found != self.tensor_count:
            metadata.fail(
                "split.tensors.count", f"is {self.tensor_count}, and the {self.count} shards have {found} tensors"
            )


def read_split(metadata: GgufMetadata) -> Split | None:
    """The set whose first shard has these metadata; None for a file that is not split.

    `FileFormatError` for a later shard: only the first one has the model's metadata.
    """
    count = metadata.integer("split.count", 0, minimum=0)
    if count <= 1:
        return None
    if count > layout.MAX_SHARDS:
        metadata.fail("split.count", f"is {count}, above the limit of {layout.MAX_SHARDS}")
    number = metadata.integer("split.no", minimum=0)
    if number:
        match = _NAME.fullmatch(metadata.path.name)
        first = shard_name(match["stem"], 0, count) if match else "the one that ends in -00001-of-…"
        metadata.fail("split.no", f"this is shard {number + 1} of {count}; open the first one, {first}")
    return Split(count, metadata.integer("split.tensors.count", None, minimum=0))


def shard_name(stem: str, number: int, count: int) -> str:
    """The file name of shard `number` (from 0)."""
    return f"{stem}-{number + 1:05d}-of-{count:05d}.gguf"


def other_shards(first: Path, metadata: GgufMetadata, split: Split) -> Iterator[tuple[int, Path]]:
    """Number and path of every shard but the first; `FileFormatError` for a name of no set, or a missing one."""
    match = _NAME.fullmatch(first.name)
    if match is None or int(match["number"]) != 1 or int(match["count"]) != split.count:
        wanted = shard_name("NAME", 0, split.count)
        metadata.fail("split.count", f"this is the first of {split.count} shards, so the file must be named {wanted}")
    paths = [
        (number, first.with_name(shard_name(match["stem"], number, split.count))) for number in range(1, split.count)
    ]
    missing = [path for _, path in paths if not path.is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise FileFormatError(
            missing[0], f"a shard of {first.name} is missing{more}: put all {split.count} in one folder"
        )
    yield from paths
