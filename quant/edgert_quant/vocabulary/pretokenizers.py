"""The pre-tokenizers that `tokenizer.ggml.pre` names: how a byte-level BPE cuts text into words before merging.

Each is a list of regular expressions, applied one after another: a match becomes a word of its own, and so does what
lies between two matches. Byte-level encoding follows the last one. The expressions are those of the models' own
`tokenizer.json` (Oniguruma syntax, which the `tokenizers` library runs); the names, and which expression belongs to
which name, are llama.cpp's (`src/llama-vocab.cpp` and `convert_hf_to_gguf_update.py`, MIT).
"""

from __future__ import annotations

from dataclasses import dataclass

from edgert_models.errors import UnsupportedError

_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_SYMBOLS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_SYMBOLS_OR_SLASH = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
PUNCTUATION = r"[\p{P}\$\+<=>\^~\|`]+"
DIGIT, DIGITS, _THREE_DIGITS = r"\p{N}", r"\p{N}+", r"\p{N}{1,3}"


_LLAMA3 = rf"{_CONTRACTION}|{_WORD}|{_THREE_DIGITS}|{_SYMBOLS}|{_SPACES}"
_QWEN2 = rf"{_CONTRACTION}|{_WORD}|{DIGIT}|{_SYMBOLS}|{_SPACES}"
_MARKED_WORD = r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+"
_QWEN35 = rf"{_CONTRACTION}|{_MARKED_WORD}|{DIGIT}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACES}"

# Words that are cut where lower case meets upper case: o200k and its relatives.
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+"
_TITLED = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
_O200K = rf"{_CASED}{_CONTRACTION}?|{_TITLED}{_CONTRACTION}?|{_THREE_DIGITS}|{_SYMBOLS_OR_SLASH}|{_SPACES}"
_TEKKEN = rf"{_CASED}|{_TITLED}|{DIGIT}|{_SYMBOLS_OR_SLASH}|{_SPACES}"
_UPPER_NOT_HAN = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
_LOWER_NOT_HAN = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
_KIMI_K2 = (
    rf"[\p{{Han}}]+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER_NOT_HAN}*{_LOWER_NOT_HAN}+{_CONTRACTION}?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{_UPPER_NOT_HAN}+{_LOWER_NOT_HAN}*{_CONTRACTION}?"
    rf"|{_THREE_DIGITS}|{_SYMBOLS}|{_SPACES}"
)

_ASCII_PUNCTUATION = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"
_DEEPSEEK3_WORD = rf"{_ASCII_PUNCTUATION}[A-Za-z]+|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+"
_DEEPSEEK3 = rf"{_DEEPSEEK3_WORD}| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_SPACES}"
_SPARK25 = rf"{_DEEPSEEK3_WORD}| ?[\p{{P}}\p{{S}}]+|[\r\n]|\s+(?!\S)|\s+"
_CJK_AND_KANA = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
_CJK_AND_HANGUL = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
_DEEPSEEK_PUNCTUATION = r"\s?[!-/:-~" + "\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+"
# The letters of the scripts that have case, as deepseek-llm's tokenizer.json spells them out.
_CASED_LETTERS = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373"
    "\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f"
    "\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77"
    "\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-"
    "\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec"
    "\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-"
    "\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3"
    "\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17"
    "\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-"
    "\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
)
_DEEPSEEK_LETTERS = rf"\s?[{_CASED_LETTERS}]+"
_YOUTU_SCRIPTS = (
    "[\uac00-\ud7a3\u3131-\u318e]+|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f"
    "\ufe30-\ufe4f]+|[\u3105-\u312f]+|[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
)
_YOUTU = rf"{_CASED}{_CONTRACTION}?|{_TITLED}{_CONTRACTION}?|{DIGIT}|{_SYMBOLS_OR_SLASH}|{_SPACES}"
_DIGIT_GROUPS = r"\d{1,3}(?=(?:\d{3})*\b)"  # thousands, counted from the right
_AFMOE_DIGITS = r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))"  # as above
_AFMOE_SCRIPTS = (
    "[\u4e00-\u9fff\u3400-\u4dbf\uf900-\ufaff\u3040-\u309f\u30a0-\u30ff\uff65-\uff9f\u2f00-\u2fdf\u0e00-\u0e7f\u0e80-\u0eff"
    "\u1780-\u17ff\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af\u1100-\u11ff]+"
)
_BLOOM = r" ?[^(\s|.,!?" + "\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"
_JAIS2_SPACES = "|".join(rf"\s{{{2**n}}}(?!\S)" for n in range(9, 1, -1)) + r"|\s{1,2}(?!\S)|\s{1}"


@dataclass(frozen=True)
class PreTokenizer:
    """One pre-tokenizer: the expressions in order, and the habits of the vocabularies that use it.

    `ignore_merges`: a word that is in the vocabulary as it stands is taken whole, whatever the merges say.
    `add_bos`: a begin-of-sequence token is added where `tokenizer.ggml.add_bos_token` is absent. `nfc`: text is
    composed (Unicode NFC) before it is cut; GGUF has no key for that.
    """

    expressions: tuple[str, ...]
    ignore_merges: bool = False
    add_bos: bool = False
    nfc: bool = False


def _names(
    names: str, *expressions: str, ignore_merges: bool = False, add_bos: bool = False, nfc: bool = False
) -> dict[str, PreTokenizer]:
    entry = PreTokenizer(expressions, ignore_merges, add_bos, nfc)
    return dict.fromkeys(names.split(), entry)


# Where several names share one entry, the first is the one that `detect` answers with.
PRE_TOKENIZERS: dict[str, PreTokenizer] = {
    **_names(
        "gpt-2 mpt phi-2 jais exaone4 trillion granite-docling gigachat a.x-4.0 mellum modern-bert"
        " jina-es jina-de jina-v2-es jina-v2-de jina-v1-en jina-v2-code roberta-bpe",
        GPT2,
    ),
    **_names("olmo", GPT2, nfc=True),
    **_names("command-r", DIGIT, GPT2, nfc=True),
    **_names("smollm starcoder refact codeshell exaone minerva-7b mellum2", DIGIT, GPT2),
    **_names("default", r"[\p{P}\$\+<=>\^~\|]+", GPT2, DIGITS, "[0-9][0-9][0-9]"),
    **_names("falcon", PUNCTUATION, GPT2, "[0-9][0-9][0-9]"),
    **_names(
        "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
        _LLAMA3,
        ignore_merges=True,
        add_bos=True,
    ),
    **_names("smaug-bpe dbrx chatglm-bpe", _LLAMA3),
    **_names("glm4 glm5", _LLAMA3, ignore_merges=True),
    **_names("qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2", _QWEN2, nfc=True),
    **_names("qwen35", _QWEN35),
    **_names("deepseek-llm", r"[\r\n]", _DEEPSEEK_LETTERS, _DEEPSEEK_PUNCTUATION, r"\s+$", _CJK_AND_HANGUL, DIGITS),
    **_names("deepseek-coder", r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CJK_AND_HANGUL, DIGIT),
    **_names("deepseek-v3 hunyuan-dense joyai-llm hy_v4", _THREE_DIGITS, _CJK_AND_KANA, _DEEPSEEK3),
    **_names("afmoe", _AFMOE_DIGITS, _AFMOE_SCRIPTS, _DEEPSEEK3),
    **_names("superbpe", DIGITS, r"(?=(\d{3})+(?!\d))"),
    **_names("spark2_5", _THREE_DIGITS, _CJK_AND_KANA, _SPARK25, DIGIT),
    **_names("gpt-4o o200k llama4 kanana2 talkie minimax-m2", _O200K),
    **_names("granite-embed-multi-97m", _O200K, ignore_merges=True),
    **_names("tekken", _TEKKEN, ignore_merges=True, add_bos=True),
    **_names("tiny_aya cohere2moe", _DIGIT_GROUPS, _O200K),
    **_names("youtu", _YOUTU_SCRIPTS, _YOUTU, ignore_merges=True),
    **_names("kimi-k2", _KIMI_K2),
    **_names("poro-chat bloom gpt3-finnish", _BLOOM),
    **_names("viking", _BLOOM, DIGIT),
    **_names("jais-2", rf"{_CONTRACTION}|{_WORD}|{_THREE_DIGITS}|{_SYMBOLS}|\s*[\r\n]+|{_JAIS2_SPACES}"),
    **_names(
        "bailingmoe bailingmoe2 llada-moe",
        rf"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{{L}}\p{{N}}]?+\p{{L}}+|{DIGIT}| ?[^\s\p{{L}}\p{{N}}]++[\r\n]*"
        r"|\s*[\r\n]|\s+(?!\S)|\s+",
    ),
    **_names("seed-coder", rf"{_CONTRACTION}|{_WORD}|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_SPACES}"),
    **_names("ufakzeka", rf"{_WORD}|{DIGIT}|{_SYMBOLS}|{_SPACES}"),
    **_names("laguna", r"[^\n]+|[\n]+", _QWEN2),
    **_names(
        "minicpm5",
        _THREE_DIGITS,
        rf"{_CONTRACTION}|{_WORD}|{DIGITS}|{_SYMBOLS}|{_SPACES}",
        ignore_merges=True,
    ),
    **_names(
        "exaone-moe",
        rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|{DIGIT}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",
    ),
    **_names(
        "chameleon",
        "<sentinel:[0-9]+>",
        "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
        r"([\t\n]|    |  )",
        DIGIT,
        r"[\p{P}!-/:-@\[-`{-~]",
        GPT2,
        add_bos=True,
    ),
}
"""Every name of llama.cpp's list but those of `SPACED_BPE` and `whitespace`, which is a tokenizer model of its own."""

SPACED_BPE = frozenset({"gemma4", "granite-embed-multi-311m", "sarvam-moe"})
"""Names that stand for no byte-level BPE, but for one over plain text with U+2581 for spaces, as `gemma4` is."""

# How the same expressions are written elsewhere; the right-hand side is how the table writes them.
_SPELLINGS = (
    ("\r", r"\r"),
    ("\n", r"\n"),
    ("\t", r"\t"),
    ("(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])", _CONTRACTION),
    (r"\p{N}{1}", r"\p{N}"),
)


def pre_tokenizer(name: str) -> PreTokenizer:
    """The pre-tokenizer that `tokenizer.ggml.pre` calls `name`; `UnsupportedError` where it is not in the table."""
    try:
        return PRE_TOKENIZERS[name]
    except KeyError:
        pass
    known = ", ".join(sorted(PRE_TOKENIZERS))
    raise UnsupportedError(
        f"the pre-tokenizer {name[:80]!r} is unknown (tokenizer.ggml.pre); convert the model again from its "
        f"checkpoint, which keeps the tokenizer whole. Known are {known}"
    )


def canonical(expression: str) -> str:
    """`expression` with the spelling of its escapes and contractions made the table's."""
    for found, ours in _SPELLINGS:
        expression = expression.replace(found, ours)
    return expression


def detect(expressions: tuple[str, ...], *, ignore_merges: bool = False, nfc: bool = False) -> str | None:
    """The name whose expressions equal these, spelling aside; None where no entry of the table does.

    Of the entries that share the expressions, one with the same habits is preferred.
    """
    wanted = tuple(canonical(expression) for expression in expressions)
    matches = [
        name
        for name, entry in PRE_TOKENIZERS.items()
        if wanted in {tuple(map(canonical, entry.expressions)), _ALSO.get(name)}
    ]

    def unlike(name: str) -> tuple[bool, bool]:
        entry = PRE_TOKENIZERS[name]
        return entry.ignore_merges != ignore_merges, entry.nfc != nfc

    return min(matches, key=unlike, default=None)


# Forms that a tokenizer.json has and that cut alike, given the vocabulary that comes with them.
_ALSO: dict[str, tuple[str, ...]] = {
    "falcon": (canonical(PUNCTUATION), canonical(GPT2), DIGITS, "[0-9][0-9][0-9]"),
    "deepseek-llm": (*map(canonical, PRE_TOKENIZERS["deepseek-llm"].expressions[:-1]), DIGIT),
}
