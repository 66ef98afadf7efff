from hypothesis import given, settings
from hypothesis import strategies as st

from edgert.engine.sampling import Breakers

PIECES = [b"a", b"b", b"ab", b"ba", b"aab", b"", b"\xc3", b"\xa9", b"b\xc3"]


def test_tokens_that_have_a_text_within() -> None:
    assert Breakers.find(["b"], PIECES).containing == {1, 2, 3, 4, 8}
    assert Breakers.find(["ab", "é"], PIECES).containing == {2, 4}
    assert Breakers.find(["\ud800"], PIECES).containing == frozenset()


def test_a_character_in_two_tokens() -> None:
    breakers = Breakers.find(["é"], PIECES)
    assert [breakers.end_at([0, 8, 7, 1], end) for end in (1, 2, 3, 4)] == [False, False, True, False]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from([0, 1, 2, 3, 4, 6, 7, 8]), min_size=1, max_size=20),
    st.sampled_from(["ab", "aab", "ba", "abab", "bé"]),
)
def test_a_text_is_found_however_it_is_cut(tokens: list[int], text: str) -> None:
    breakers, wanted = Breakers.find([text, "zz"], PIECES), text.encode()
    for end in range(1, len(tokens) + 1):
        whole = b"".join(PIECES[token] for token in tokens[:end])
        before = len(whole) - len(PIECES[tokens[end - 1]])
        ends = [i + len(wanted) for i in range(len(whole)) if whole.startswith(wanted, i)]
        assert breakers.end_at(tokens, end) == any(place > before for place in ends)
