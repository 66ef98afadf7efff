"""Headers made to break readers: each is refused with file, offset and field, in bounded time and memory.

The classes of attack are those of the published holes: counts and lengths not checked against the file
(CVE-2024-21802, CVE-2026-33298), sizes that wrap when multiplied or added (CVE-2025-53630, CVE-2026-27940), tensors
that reach past the end of the file (CVE-2026-7482).
"""

import struct
import sys

import pytest
from edgert_models.errors import FileFormatError, UnsupportedError
from edgert_quant.gguf import GgufFile

from tests.support.budget import open_limited
from tests.support.hostile import (
    ARRAY,
    BOOL,
    F32,
    STRING,
    U8,
    U32,
    U64,
    array_pair,
    gguf,
    pair,
    string,
    tensor,
    text_pair,
    u32,
    u64,
)

HUGE = (1 << 64) - 1
DATA = bytes(64)


def alignment(value: int) -> bytes:
    return pair("general.alignment", U32, u32(value))


CASES = {
    "empty": (b"", "magic", "needs 4 bytes, and the file has 0 more"),
    "other magic": (b"GGML" + bytes(60), "magic", "is no GGUF file: it starts with b'GGML'"),
    "old format": (b"tjgg" + bytes(60), "magic", "is no GGUF file: a GGJT file, a format before GGUF"),
    "zip": (b"PK\3\4" + bytes(60), "magic", "is no GGUF file: a zip archive, as torch.save writes it"),
    "version 0": (gguf(version=0), "version", "is 0"),
    "cut in the counts": (gguf()[:20], "key-value count", "needs 8 bytes, and the file has 4 more"),
    "tensor count above the cap": (gguf(tensor_count=HUGE), "tensor count", f"{HUGE} is above the limit of 65536"),
    "key count above the cap": (gguf(pair_count=1 << 63), "key-value count", f"{1 << 63} is above the limit of 65536"),
    "more tensors than bytes": (gguf(tensor_count=65_536), "tensor count", "65536 need 2097152 bytes at least"),
    "more keys than bytes": (gguf(pair_count=65_536), "key-value count", "65536 need 917504 bytes at least"),
    "key longer than the file": (gguf([string("k", 40_000) + u32(U8) + b"\0"]), "key 0", "needs 40000 bytes"),
    "key above the cap": (gguf([string("k", 65_536) + u32(U8) + b"\0"]), "key 0", "above the limit of 65535"),
    "key of 2^64 - 1 bytes": (gguf([string("k", HUGE) + u32(U8) + b"\0"]), "key 0", f"a length of {HUGE} bytes"),
    "empty key": (gguf([pair("", U8, b"\1")]), "key 0", "is empty"),
    "key not UTF-8": (gguf([pair(b"\xff\xfe", U8, b"\1")]), "key 0", "is not valid UTF-8"),
    "key twice": (gguf([text_pair("k", "a"), pair("k", U8, b"\1")]), "k", "the key is there twice"),
    "string longer than the file": (gguf([pair("k", STRING, string("v", 1000))]), "k", "needs 1000 bytes"),
    "string above the cap": (gguf([pair("k", STRING, string("v", HUGE))]), "k", f"a length of {HUGE} bytes is above"),
    "string whose end wraps": (gguf([pair("k", STRING, string("v", HUGE - 7))]), "k", f"a length of {HUGE - 7} bytes"),
    "string not UTF-8": (gguf([text_pair("k", b"abc\xc3\x28")]), "k", "is not valid UTF-8"),
    "string cut in a character": (gguf([text_pair("k", "é".encode()[:1])]), "k", "is not valid UTF-8"),
    "unknown value type": (gguf([pair("k", 13, bytes(64))]), "k", "13 is no type of a GGUF value"),
    "boolean 2": (gguf([pair("k", BOOL, b"\2")]), "k", "a boolean is 2, neither 0 nor 1"),
    "boolean 7 in an array": (gguf([array_pair("k", BOOL, 3, b"\0\1\7")]), "k", "a boolean is neither 0 nor 1"),
    "array of arrays": (gguf([array_pair("k", ARRAY, 1, bytes(24))]), "k", "is an array of arrays"),
    "array of an unknown type": (gguf([array_pair("k", 99, 1, bytes(24))]), "k", "99 is no type of a GGUF value"),
    "array count above the cap": (gguf([array_pair("k", U8, HUGE, DATA)]), "k", f"an array of {HUGE} items is above"),
    "array bytes that wrap": (gguf([array_pair("k", U64, 1 << 61, DATA)]), "k", "is above the limit of 16777216"),
    "array longer than the file": (gguf([array_pair("k", U64, 1 << 20, DATA)]), "k", "needs 8388608 bytes"),
    "string array count above the cap": (gguf([array_pair("k", STRING, HUGE, DATA)]), "k", "are above the limit of"),
    "more strings than bytes": (gguf([array_pair("k", STRING, 1 << 20, DATA)]), "k", "needs 8388608 bytes"),
    "string in an array past the end": (
        gguf([array_pair("k", STRING, 2, string("a") + string("b", 500) + DATA)]),
        "k",
        "needs 500 bytes",
    ),
    "string in an array of 2^64 - 8": (
        gguf([array_pair("k", STRING, 2, string("a") + string("b", HUGE - 7) + DATA)]),
        "k",
        f"string 1 has a length of {HUGE - 7} bytes",
    ),
    "string in an array not UTF-8": (
        gguf([array_pair("k", STRING, 2, string(b"\xc3") + string(b"\xa9"))]),
        "k",
        "a string is not valid UTF-8",
    ),
    "alignment 0": (gguf([alignment(0)]), "general.alignment", "alignment 0 is no power of two"),
    "alignment 3": (gguf([alignment(3)]), "general.alignment", "alignment 3 is no power of two"),
    "alignment 2^31": (gguf([alignment(1 << 31)]), "general.alignment", "is above the limit of 1048576"),
    "alignment of another type": (
        gguf([pair("general.alignment", U64, u64(32))]),
        "general.alignment",
        "is UINT64, not UINT32",
    ),
    "alignment as text": (gguf([text_pair("general.alignment", "32")]), "general.alignment", "is STRING, not UINT32"),
    "tensor name above the cap": (gguf([], [tensor("n" * 65, [1])], DATA), "tensor name", "above the limit of 64"),
    "tensor name of 2^64 - 1": (
        gguf([], [string("n", HUGE) + bytes(32)], DATA),
        "tensor name",
        f"a length of {HUGE} bytes",
    ),
    "tensor name not UTF-8": (gguf([], [tensor(b"\xff", [1])], DATA), "tensor name", "is not valid UTF-8"),
    "tensor twice": (
        gguf([], [tensor("a", [1]), tensor("a", [1], offset=32)], DATA),
        "tensor 'a'",
        "the name is there twice",
    ),
    "no dimensions": (gguf([], [tensor("a", []) + bytes(8)], DATA), "tensor 'a'", "has 0 dimensions, not 1 to 4"),
    "5 dimensions": (gguf([], [tensor("a", [1] * 5)], DATA), "tensor 'a'", "has 5 dimensions, not 1 to 4"),
    "2^32 - 1 dimensions": (
        gguf([], [tensor("a", [1], count=(1 << 32) - 1)], DATA),
        "tensor 'a'",
        "has 4294967295 dimensions",
    ),
    "dimension 0": (gguf([], [tensor("a", [4, 0])], DATA), "tensor 'a'", "has a dimension of 0"),
    "dimension 2^64 - 1": (gguf([], [tensor("a", [HUGE])], DATA), "tensor 'a'", "has more than 2^63 elements"),
    "product wraps to 0": (
        gguf([], [tensor("a", [1 << 32, 1 << 32])], DATA),
        "tensor 'a'",
        "has more than 2^63 elements",
    ),
    "partial product wraps": (
        gguf([], [tensor("a", [1 << 62, 4, 1, 1])], DATA),
        "tensor 'a'",
        "has more than 2^63 elements",
    ),
    "bytes wrap": (gguf([], [tensor("a", [1 << 62])], DATA), "tensor 'a'", f"ends at byte {(1 << 64) + 64}"),
    "bytes wrap after padding": (
        gguf([], [tensor("a", [(1 << 62) - 1])], DATA),
        "tensor 'a'",
        f"ends at byte {(1 << 64) + 60}",
    ),
    "row of half a block": (
        gguf([], [tensor("a", [48], 8)], DATA),
        "tensor 'a'",
        "has rows of 48 weights, no multiple of the 32 in a Q8_0 block",
    ),
    "offset not aligned": (
        gguf([], [tensor("a", [1], offset=4)], DATA),
        "tensor 'a'",
        "offset 4 is no multiple of the alignment 32",
    ),
    "offset past the end": (
        gguf([], [tensor("a", [1], offset=1 << 20)], DATA),
        "tensor 'a'",
        "is the download complete",
    ),
    "offset that wraps": (
        gguf([], [tensor("a", [8], offset=(1 << 64) - 32)], DATA),
        "tensor 'a'",
        f"ends at byte {(1 << 64) + 64}",
    ),
    "tensor one byte past the end": (gguf([], [tensor("a", [17])], bytes(67)), "tensor 'a'", "and the file at 131"),
    "overlap": (
        gguf([], [tensor("a", [9]), tensor("b", [1], offset=32)], DATA),
        "tensor 'b'",
        "overlaps tensor 'a': starts at byte 128, before its end at 132",
    ),
    "same place": (gguf([], [tensor("a", [1]), tensor("b", [1])], DATA), "tensor 'b'", "overlaps tensor 'a'"),
    "one inside another": (
        gguf([], [tensor("b", [1], offset=32), tensor("a", [16])], DATA),
        "tensor 'b'",
        "overlaps tensor 'a'",
    ),
    "data missing": (gguf([], [tensor("a", [16])]), "tensor 'a'", "is the download complete"),
}


@pytest.mark.parametrize("case", CASES)
def test_hostile_headers_are_refused_with_place_and_reason(case, tmp_path):
    data, field, reason = CASES[case]
    path = tmp_path / "x.gguf"
    path.write_bytes(data)
    with pytest.raises(FileFormatError) as caught:
        GgufFile.open(path)
    error = caught.value
    assert error.path == str(path)
    assert error.field == field
    assert reason in error.reason
    assert error.offset is not None
    assert 0 <= error.offset <= len(data)
    assert str(error) == f"{path} at byte {error.offset}, {field}: {error.reason}"
    assert "\n" not in str(error)
    assert error.exit_code == 65


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), r"is a big-endian GGUF \(version 3\); edgert reads little-endian"),
        (b"FUGG" + bytes(60), "is a big-endian GGUF; edgert reads little-endian"),
        (gguf(version=1), "is GGUF version 1; edgert reads versions 2 and 3"),
        (gguf(version=4), "is GGUF version 4; edgert reads versions 2 and 3"),
        (gguf([], [tensor("a", [1], 4)], DATA), r"tensor 'a': tensor type 4 \(Q4_2\) was removed from GGUF"),
        (gguf([], [tensor("a", [1], 4_000_000_000)], DATA), "tensor 'a': tensor type 4000000000 is unknown"),
    ],
)
def test_what_is_not_done_is_refused_by_name(data, message, tmp_path):
    path = tmp_path / "x.gguf"
    path.write_bytes(data)
    with pytest.raises(UnsupportedError, match=message) as caught:
        GgufFile.open(path)
    assert str(caught.value).startswith(str(path))


def test_the_offset_is_where_the_fault_is(tmp_path):
    path = tmp_path / "x.gguf"
    for at in range(100):
        text = "a" * at + "é"
        data = gguf([text_pair("k", text)]).replace("é".encode(), b"\xc3\x28")
        path.write_bytes(data)
        with pytest.raises(FileFormatError) as caught:
            GgufFile.open(path)
        assert caught.value.offset == data.index(b"\xc3\x28")


def test_names_from_a_file_cannot_write_to_a_terminal(tmp_path):
    path = tmp_path / "x.gguf"
    name = "\x1b[2J\n" + "n" * 50
    path.write_bytes(gguf([], [tensor(name, [0])], DATA))
    with pytest.raises(FileFormatError) as caught:
        GgufFile.open(path)
    assert str(caught.value).isprintable()
    key = "\x1b[2J" + "k" * 60_000
    path.write_bytes(gguf([pair(key, F32, bytes(4))] * 2))
    with pytest.raises(FileFormatError) as caught:
        GgufFile.open(path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300 + len(str(path))


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of address space is read and set as Linux has it")
def test_memory_and_time_are_bounded_while_refusing(tmp_path):
    """Each file makes the reader do the most work for its size, and is refused at its end."""
    bad = pair("broken", BOOL, b"\2")
    tiny = b"".join(pair(f"{i:x}", U8, b"\0") for i in range(65_535))
    infos = b"".join(tensor(f"{i:x}", [9 if i == 65_000 else 1], 0, 32 * i) for i in range(65_536))
    files = {
        "empty strings": gguf([array_pair("s", STRING, 1 << 22, bytes(8 << 22)), bad]),
        "short strings": gguf([array_pair("s", STRING, 2_000_000, string("é") * 2_000_000), bad]),
        "a wide string": gguf([text_pair("s", "𝄞" + "a" * (63 << 20)), bad]),
        "many keys": gguf([tiny, bad], pair_count=65_536),
        "many tensors": gguf([], [infos], bytes(32 << 16), tensor_count=65_536),
        "many numbers": gguf([*(array_pair(f"n{i}", U64, 1 << 20, bytes(8 << 20)) for i in range(8)), bad]),
    }
    paths = []
    for name, data in files.items():
        paths.append(tmp_path / name)
        paths[-1].write_bytes(data)
    for path, (outcome, seconds) in open_limited(GgufFile, *paths).items():
        assert outcome.startswith(path)
        assert "neither 0 nor 1" in outcome or "overlaps tensor 'fde8'" in outcome
        assert seconds < 5, (path, seconds)  # of the CPU; a slow one takes more than 1, what this catches minutes
