"""Text in and out: tokenizer, chat templates, streaming. Heavy libraries are imported when first used."""

from edgert.text.tokenizer import Tokenizer

__all__ = ["Tokenizer"]
