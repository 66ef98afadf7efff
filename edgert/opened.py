"""A model's file, and what it says of how to ask the model and how to read what it answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import cast

import numpy as np
from edgert_models import spec_from_gguf
from edgert_models.errors import RequestError, UnsupportedError
from edgert_quant.gguf import GgufFile

from edgert.chat import Chat, ChatPrompt
from edgert.constraints import AnswerForm, Compiler, TokenConstraint
from edgert.engine.params import SamplingParams
from edgert.engine.sampling import Breakers
from edgert.pooling import pooling_of
from edgert.ranking import Ranker
from edgert.recommended import recommended
from edgert.text import Tokenizer
from edgert.text.infill import Infill

Prompt = str | Sequence[int] | ChatPrompt


class Opened:
    """What a GGUF file gives beside weights. What it may lack is None: a `tokenizer`, a `chat` template, tokens to
    `infill`. `vocabulary` is the number of tokens that there are: rows of the matrix beyond it are padding.
    """

    def __init__(self, path: Path, chat_template: str | Path | None) -> None:
        self.path = path
        self.file = GgufFile.open(path)
        try:
            self._read(chat_template)
        except BaseException:
            self.file.close()
            raise

    def _read(self, chat_template: str | Path | None) -> None:
        metadata = self.file.metadata
        shapes = {name: tensor.shape for name, tensor in self.file.tensors.items()}
        self.spec = spec_from_gguf(metadata, shapes)
        self.parameters = sum(math.prod(shape) for shape in shapes.values())
        self.pool = pooling_of(metadata)
        self.recommended = recommended(metadata)
        self.vocabulary = self.spec.vocabulary
        self.tokenizer: Tokenizer | None = None
        self.infill: Infill | None = None
        if metadata.string("tokenizer.ggml.model", "none") != "none":
            self.tokenizer = Tokenizer.from_gguf(metadata)
            self.infill = Infill.from_gguf(metadata, self.tokenizer)
            self.vocabulary = min(self.vocabulary, self.tokenizer.vocab_size)
        self.ranker = cache(partial(Ranker.from_gguf, self.file, self.tokenizer, self.spec.width))
        self.chat = Chat.from_gguf(metadata, self.tokenizer, chat_template)
        self._breakers = _breakers(self.tokenizer)
        self._compiler = None if self.tokenizer is None else Compiler(self.tokenizer, self.vocabulary)

    def close(self) -> None:
        """Close the file, and end the processes that templates and forms have."""
        if self.chat is not None:
            self.chat.template.close()
        if self._compiler is not None:
            self._compiler.close()
        self.file.close()

    @property
    def end_ids(self) -> frozenset[int]:
        """Tokens that end an answer."""
        ends = frozenset() if self.tokenizer is None else self.tokenizer.stop_ids
        return ends if self.infill is None else ends | self.infill.ends

    def need_tokenizer(self) -> Tokenizer:
        """The tokenizer; UnsupportedError if there is none."""
        if self.tokenizer is None:
            raise UnsupportedError(f"{self.path} has no tokenizer; pass token ids instead of text")
        return self.tokenizer

    def need_chat(self) -> Chat:
        """The chat template; UnsupportedError if there is none."""
        if self.chat is None:
            raise UnsupportedError(
                f"{self.path} has no chat template; give one (chat_template, --chat-template FILE), or use generate"
            )
        return self.chat

    def ids(self, prompt: Prompt) -> Sequence[int]:
        """The token ids of a prompt."""
        if isinstance(prompt, ChatPrompt):
            return prompt.token_ids
        if isinstance(prompt, str):
            return self.need_tokenizer().encode(prompt)
        if isinstance(prompt, bytes | bytearray) or not isinstance(prompt, Sequence | np.ndarray):
            raise RequestError(f"a prompt is a text or token ids, not {type(prompt).__name__}", parameter="prompt")
        return cast("Sequence[int]", prompt)

    def constraint(self, prompt: Prompt, params: SamplingParams) -> TokenConstraint | None:
        """What holds an answer to the form that it has to have; None where any will do."""
        content = params.structured_outputs
        if isinstance(prompt, ChatPrompt):
            form = prompt.form(content)
        else:
            form = None if content is None else AnswerForm(content)
        if form is None:
            return None
        if self._compiler is None or self.tokenizer is None:
            raise UnsupportedError(f"{self.path} has no tokenizer, so answers cannot be held to a form")
        ids = self.ids(prompt)
        return self._compiler.compile(form, begins=len(ids) > 0 and self.tokenizer.is_control(int(ids[-1])))

    def breakers(self, params: SamplingParams) -> Breakers | None:
        """The tokens at which DRY stops looking for repetitions; None where it does not look."""
        if not params.dry_multiplier or not params.dry_sequence_breakers:
            return None
        if self.tokenizer is None:
            raise UnsupportedError(f"{self.path} has no tokenizer, so dry_sequence_breakers cannot be found")
        return self._breakers(tuple(params.dry_sequence_breakers))

    def pieces(self, params: SamplingParams) -> Sequence[bytes] | None:
        """The bytes of every token, for the sampler that looks at them."""
        if "infill" not in params.samplers:
            return None
        if self.tokenizer is None:
            raise UnsupportedError(f"{self.path} has no tokenizer, which the sampler infill needs")
        return self.tokenizer.pieces


def _breakers(tokenizer: Tokenizer | None) -> Callable[[tuple[str, ...]], Breakers]:
    """`Breakers.find` for the tokens of a model; what was asked for lately is remembered."""
    return lru_cache(maxsize=16)(lambda texts: Breakers.find(texts, () if tokenizer is None else tokenizer.pieces))
