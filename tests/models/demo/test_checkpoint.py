"""The bundled checkpoint: complete, small, and of the tokenizer and template that the recipe makes."""

import json
from pathlib import Path

from demo import tokenizer as made
from tokenizers import Tokenizer

CHECKPOINT = Path(made.__file__).parent / "checkpoint"


def test_checkpoint_is_complete_and_small() -> None:
    files = {path.name: path.stat().st_size for path in CHECKPOINT.iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= files.keys()
    assert sum(files.values()) < 40_000_000


def test_widths_suit_the_k_types() -> None:
    config = json.loads((CHECKPOINT / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["Qwen3MoeForCausalLM"]
    assert config["hidden_size"] % 256 == config["moe_intermediate_size"] % 256 == 0
    assert config["vocab_size"] == made.VOCABULARY
    assert config["norm_topk_prob"] is True


def test_tokenizer_is_the_recipes() -> None:
    tokens = Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))
    assert tokens.get_vocab_size() == made.VOCABULARY
    assert [tokens.token_to_id(text) for text in made.SPECIAL] == [0, 1, 2]
    assert tokens.decode(tokens.encode("Set it to 21°C, please!").ids) == "Set it to 21°C, please!"
    config = json.loads((CHECKPOINT / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert config["chat_template"] == made.CHAT_TEMPLATE
    assert (CHECKPOINT / "chat_template.jinja").read_text(encoding="utf-8") == made.CHAT_TEMPLATE
