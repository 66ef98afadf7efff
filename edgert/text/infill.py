"""Filling in: a prompt of what is before a gap and what is after it, for models that were trained to write the middle.

Source: "Efficient Training of Language Models to Fill in the Middle" (https://arxiv.org/abs/2207.14255), prefix first;
with other files, Qwen2.5-Coder's form for repositories (https://arxiv.org/abs/2409.12186). The names of the tokens are
those of llama.cpp (`src/llama-vocab.cpp`), which GGUF files need not tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgert_models.errors import UnsupportedError
from edgert_quant.gguf import GgufMetadata

from edgert.text.tokenizer import Tokenizer

_PREFIX = ("<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>", "<|code_prefix|>")
_SUFFIX = ("<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>", "<|code_suffix|>")
_MIDDLE = ("<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>", "<|code_middle|>")
_REPOSITORY = ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>")
_FILE = ("<|file_sep|>",)


@dataclass(frozen=True, slots=True)
class Infill:
    """The tokens that say what is what; None for those that the model has not."""

    tokenizer: Tokenizer
    prefix: int
    suffix: int
    middle: int
    repository: int | None
    file: int | None

    @classmethod
    def from_gguf(cls, metadata: GgufMetadata, tokenizer: Tokenizer) -> Infill | None:
        """Those that the file names, else those known by name; None where one of the three is missing."""

        def find(names: Sequence[str], *keys: str) -> int | None:
            for key in (f"tokenizer.ggml.{key}_token_id" for key in keys):
                if key in metadata:
                    return metadata.integer(key, minimum=0, maximum=tokenizer.vocab_size - 1)
            return next((index for name in names if (index := tokenizer.token_id(name)) is not None), None)

        prefix, suffix = find(_PREFIX, "fim_pre", "prefix"), find(_SUFFIX, "fim_suf", "suffix")
        middle = find(_MIDDLE, "fim_mid", "middle")
        if prefix is None or suffix is None or middle is None:
            return None
        return cls(tokenizer, prefix, suffix, middle, find(_REPOSITORY, "fim_rep"), find(_FILE, "fim_sep"))

    @property
    def ends(self) -> frozenset[int]:
        """Tokens that end what is filled in: what begins after them is another file."""
        return frozenset(token for token in (self.repository, self.file) if token is not None)

    def prompt(self, before: str, after: str, files: Sequence[tuple[str, str]] = ()) -> list[int]:
        """Token ids that ask for what is between. `files` are others of the project, as (name, text); UnsupportedError
        where the model cannot be told of them. Control tokens that texts spell out are text.
        """

        def plain(text: str) -> list[int]:
            return self.tokenizer.encode(text, add_special=False, parse_special=False)

        ids = self.tokenizer.encode("") if self.tokenizer.vocabulary.add_bos else []
        if files:
            if self.file is None:
                raise UnsupportedError("the model has no token that separates files; leave the other files out")
            if self.repository is not None:
                ids += [self.repository, *plain("project\n")]
            for name, text in files:
                ids += [self.file, *plain(f"{name}\n{text}")]
            ids.append(self.file)
        return [*ids, self.prefix, *plain(before), self.suffix, *plain(after), self.middle]
