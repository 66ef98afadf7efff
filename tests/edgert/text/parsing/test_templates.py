"""What a chat template writes of an answer with calls, its parser reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgert.text import ChatTemplate
from edgert.text.parsing import dialect
from tests.edgert.text.make_golden_prompts import CASES, TOKENS
from tests.edgert.text.parsing.answers import collect
from tests.edgert.text.test_template import FOLDER

NAMES = {
    "GLM-4.6": "glm-4.5",
    "Kimi-K2-Instruct": "kimi-k2",
    "LFM2-8B-A1B": "lfm2",
    "MiniMax-M2": "minimax-m2",
    "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use": "hermes",
    "Qwen-Qwen3-0.6B": "hermes",
    "Qwen3-Coder": "qwen3-coder",
    "deepseek-ai-DeepSeek-V3.1": "deepseek",
    "ibm-granite-granite-4.0": "hermes",
    "meta-llama-Llama-3.1-8B-Instruct": "llama",
    "microsoft-Phi-3.5-mini-instruct": None,
    "mistralai-Mistral-Nemo-Instruct-2407": "mistral",
    "openai-gpt-oss-120b": "harmony",
}
SILENT = {"LFM2-8B-A1B", "microsoft-Phi-3.5-mini-instruct"}  # do not write the calls of earlier answers


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.jinja")), ids=lambda path: path.stem)
def test_real_templates(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    found = dialect([source])
    assert (found.calls and found.calls.name) == NAMES[path.stem]
    if path.stem in SILENT:
        return
    (ask, answer, _), tools, _ = CASES["called"]
    with ChatTemplate(source, **TOKENS) as template:
        whole = template.render([ask, answer], tools=tools, add_generation_prompt=False)
        prompt = template.render([ask], tools=tools, add_generation_prompt=True)
        before = template.render([ask], tools=tools, add_generation_prompt=False)
    begin = len(prompt) if whole.startswith(prompt) else len(before)
    parser = found.parser(before, tools or ())
    assert parser is not None
    parsed = collect([*parser.feed(whole[begin:]), *parser.finish()])
    assert parsed.calls == [("get_weather", {"city": "Zürich"})]
