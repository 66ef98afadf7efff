"""Do two encoders cut text alike? Asked of a tokenizer and its GGUF form when a checkpoint is converted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edgert_models.errors import ConversionError

from edgert_quant.vocabulary.encoders import Encoder, build_encoder, rebuild_encoder
from edgert_quant.vocabulary.table import HUGGINGFACE_JSON, TokenType, Vocabulary

AWKWARD_TEXTS: tuple[str, ...] = (
    "Hello, world!",
    " leading space, trailing space ",
    "  two   three    four     runs        of                                spaces",
    "tabs\tand\n\nnewlines\r\n \n  \n   \r\r\n\t\t x",
    "\u00a0no-break\u2003em\u3000ideographic\u200bzero-width\ufeff",
    "I'm you're we'll they'd IT'S DON'T it\u2019s 'tis ''' \"quoted\" `code`",
    "0 1 12 123 1234 12345 1234567890 3.14159 1,000,000 0xFF 1e-9 ٣٤٥ ४५६ ½ ² Ⅷ",
    "camelCase PascalCase snake_case kebab-case SCREAMING_CASE xmlHTTPRequest iPhone15Pro",
    "def f(x: int) -> str:\n    if x != 0 and y >= 1:\n\treturn f'{x!r}'  # 100% ok\n\n\n",
    '{"key": [1, 2.5, null, true], "nested": {"a/b": "c\\\\d\\n"}} <div class="a">&amp;</div> => === !== ::= ~~',
    "https://user@example.org:8080/path/?q=a+b&c=%20#frag C:\\Temp\\x.txt ../.. $HOME ${x} #!/bin/sh",
    "Grüße aus Zürich, naïve café façade, œuvre, ŁÓDŹ, İstanbul ı ŋ ß ẞ",
    "cafe\u0301 n\u0303 a\u030a\u0301 \u1e9b\u0323 \u1100\u1161\u11a8",
    "нещо на Български; Привет, мир! ΑΒΓ αβγ ΌΣΟΣ",
    "你好，世界！我们在测试分词器。日本語のテスト：カタカナとひらがな。한국어 문장입니다. 漢字仮名交じり文",
    "שלום עולם مرحبا بالعالم سلام دنیا ہیلو",
    "हिन्दी में परीक्षण বাংলা தமிழ் తెలుగు ಕನ್ನಡ മലയാളം සිංහල ไทยทดสอบ ລາວ မြန်မာ ខ្មែរ བོད་",
    "🦙🦙🦙 👨‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇨🇭 ☃ ❤️ ©®™ 😀a😀",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 ﬁ ﬀ ＡＢＣ１２３ ｶﾀｶﾅ ① ㎏ ℵ ∑∫√∞≠ ←↑→↓ ░▒▓ ┌─┐",
    "\x00\x01\x02\x1b[31mred\x1b[0m\x7f\x80\x9f",
    "\ufffd\uffff\U0010ffff\ue000 \u202eright-to-left\u202c",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa bananananana abababababab ======== -------- ........ !!!!!! ?!?!",
    "<s> </s> <unk> <pad> <0x0A> <|endoftext|> <|im_start|>user\n<|im_end|> [INST] <<SYS>> [PAD0] \u2581x \u2581\u2581",
    "Ġword Ċ ĉ âĢĻ Ã© Ð°",
    "x\n", "\n", " ", "  ", "a", "",
)  # fmt: skip
"""Strings on which tokenizers that are nearly alike differ: scripts, digits, spaces, code, marks, controls."""


@dataclass(frozen=True)
class Difference:
    """A text that two encoders cut differently; they agree up to token `place`."""

    text: str
    place: int
    first: list[int]
    second: list[int]

    def __str__(self) -> str:
        first, second = (ids[self.place : self.place + 4] for ids in (self.first, self.second))
        shown = self.text if len(self.text) <= 60 else self.text[:60] + "…"
        return f"{shown!r} gives different tokens from token {self.place} on: {first} and {second}"


def check_parity(first: Encoder, second: Encoder, texts: Iterable[str] | None = None) -> Difference | None:
    """The first of `texts` (default: `AWKWARD_TEXTS`) that the two cut differently; None where there is none.

    Each text is cut with control tokens recognised and without.
    """
    for text in AWKWARD_TEXTS if texts is None else texts:
        for parse_special in (False, True):
            ids = [encoder.encode(text, parse_special=parse_special) for encoder in (first, second)]
            if ids[0] != ids[1]:
                pairs = zip(*ids, strict=False)
                place = next((at for at, (a, b) in enumerate(pairs) if a != b), min(map(len, ids)))
                return Difference(text, place, ids[0], ids[1])
    return None


def require_parity(metadata: Mapping[str, object]) -> None:
    """Raise `ConversionError` where `tokenizer.ggml.*` cuts a text otherwise than `tokenizer.huggingface.json`.

    Metadata without the latter has nothing to differ from. The model's own special tokens are tried too, between words
    and with spaces around.
    """
    if HUGGINGFACE_JSON not in metadata:
        return
    vocabulary = Vocabulary.from_metadata(metadata)
    special = vocabulary.of_type(TokenType.CONTROL, TokenType.USER_DEFINED)
    names = [vocabulary.tokens[index] for index in special[:24]]
    texts = [*AWKWARD_TEXTS, *(f"{name}one{name} two {name}\n{name}{name}" for name in names)]
    difference = check_parity(build_encoder(metadata, vocabulary), rebuild_encoder(vocabulary), texts)
    if difference is not None:
        raise ConversionError(f"the tokenizer and its GGUF form (tokenizer.ggml.*) do not agree: {difference}")
