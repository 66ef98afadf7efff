"""Answers cut into blocks."""

from edgert import Chunk
from edgert.server.blocks import Blocks, Change


def told(changes: list[Change]) -> list[tuple[str, str, int, str]]:
    return [(change.step, change.block.kind, change.block.index, change.text) for change in changes]


def test_one_is_open_at_a_time() -> None:
    blocks = Blocks()
    assert told(blocks.push(Chunk(text="", reasoning="a", token_ids=[1, 2]))) == [
        ("begin", "reasoning", 0, ""),
        ("more", "reasoning", 0, "a"),
    ]
    assert told(blocks.push(Chunk(text="c", reasoning="b", token_ids=[3]))) == [
        ("more", "reasoning", 0, "b"),
        ("end", "reasoning", 0, ""),
        ("begin", "text", 1, ""),
        ("more", "text", 1, "c"),
    ]
    assert told(blocks.push(Chunk(text="", token_ids=[4]))) == []
    assert told(blocks.push(Chunk(text="", reasoning="d", token_ids=[5]))) == [
        ("end", "text", 1, ""),
        ("begin", "reasoning", 2, ""),
        ("more", "reasoning", 2, "d"),
    ]
    assert [block.text for block in blocks.blocks] == ["ab", "c", "d"]
    assert blocks.reasoning_tokens == 3
