"""Text in and out: tokenizer, chat templates, streaming. Heavy libraries are imported when first used."""

from edgert.text.lines import Lines
from edgert.text.streaming import StopStrings, StreamDecoder
from edgert.text.template import ChatTemplate
from edgert.text.tokenizer import Tokenizer

__all__ = ["ChatTemplate", "Lines", "StopStrings", "StreamDecoder", "Tokenizer"]
