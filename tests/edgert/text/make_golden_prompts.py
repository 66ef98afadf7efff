"""Makes `golden_prompts.json`: what Hugging Face transformers makes of real chat templates.

    python tests/edgert/text/make_golden_prompts.py FOLDER_OF_TEMPLATES

needs `transformers` (5.24 was used) and `jinja2`. A template that transformers fails on has null.
"""

from __future__ import annotations

import copy
import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

TODAY = "2025-06-24"
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}

_WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a place",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "The city's name, e.g. Zürich"},
                "days": {"type": "integer", "description": "How many days", "default": 1},
            },
            "required": ["city"],
        },
    },
}
_NOW = {
    "type": "function",
    "function": {"name": "now", "description": "The time", "parameters": {"type": "object", "properties": {}}},
}
_ASK = {"role": "user", "content": "Weather?"}
_FIRST = {"id": "abcdef123", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Zürich"}}}
_SECOND = {"id": "ghijkl456", "type": "function", "function": {"name": "now", "arguments": {}}}
_CALLED = [
    _ASK,
    {"role": "assistant", "content": "", "tool_calls": [_FIRST]},
    {"role": "tool", "tool_call_id": "abcdef123", "name": "get_weather", "content": "sunny <b>"},
]
_THOUGHT = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello!", "reasoning_content": "Greet them.\n"},
    {"role": "user", "content": "And now?"},
]
_DOCUMENTS = [{"doc_id": 1, "title": "Zürich", "text": "It rains."}]

# Each: messages, tools, variables.
CASES: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]] | None, dict[str, Any]]] = {
    "plain": ([{"role": "user", "content": "Hi"}], None, {}),
    "system": (
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi <there> & 'you'"}],
        None,
        {},
    ),
    "turns": (
        [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello!"},
            {"role": "user", "content": "Grüezi 你好"},
        ],
        None,
        {},
    ),
    "whole": (
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}],
        None,
        {"add_generation_prompt": False},
    ),
    "tools": ([{"role": "system", "content": "Be brief."}, _ASK], [_WEATHER, _NOW], {}),
    "called": (_CALLED, [_WEATHER], {}),
    "answered": (
        [*_CALLED, {"role": "assistant", "content": "Sunny."}, {"role": "user", "content": "Thanks"}],
        [_WEATHER],
        {},
    ),
    "parallel": (
        [
            _ASK,
            {"role": "assistant", "content": "I look.", "tool_calls": [_FIRST, _SECOND]},
            {"role": "tool", "tool_call_id": "abcdef123", "name": "get_weather", "content": "sunny"},
            {"role": "tool", "tool_call_id": "ghijkl456", "name": "now", "content": "12:00"},
        ],
        [_WEATHER, _NOW],
        {},
    ),
    "thought": (_THOUGHT, None, {}),
    "thinking": ([{"role": "user", "content": "Hi"}], None, {"enable_thinking": True, "thinking": True}),
    "not thinking": ([{"role": "user", "content": "Hi"}], None, {"enable_thinking": False}),
    "effort": ([{"role": "user", "content": "Hi"}], None, {"reasoning_effort": "high"}),
    "documents": ([{"role": "user", "content": "Weather?"}], None, {"documents": _DOCUMENTS}),
}


def main(folder: Path) -> None:
    """Write the golden file beside this one."""
    from transformers.utils import chat_template_utils

    class Frozen(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.fromisoformat(TODAY)

    chat_template_utils.datetime = Frozen
    prompts: dict[str, dict[str, str | None]] = {}
    for path in sorted(folder.glob("*.jinja")):
        prompts[path.stem] = {}
        for case, (messages, tools, variables) in CASES.items():
            options = {"add_generation_prompt": True, **TOKENS, **variables}
            try:
                rendered, _ = chat_template_utils.render_jinja_template(
                    conversations=[copy.deepcopy(messages)],
                    tools=tools,
                    chat_template=path.read_text(encoding="utf-8"),
                    **options,
                )
            except Exception as error:
                print(f"{path.stem}, {case}: {type(error).__name__}: {error}")
                prompts[path.stem][case] = None
            else:
                prompts[path.stem][case] = rendered[0]
    target = Path(__file__).with_name("golden_prompts.json")
    target.write_text(json.dumps(prompts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
