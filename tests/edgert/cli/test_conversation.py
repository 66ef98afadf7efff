from __future__ import annotations

from pathlib import Path

import pytest

from edgert import SamplingParams
from edgert.cli.conversation import Conversation
from tests.edgert.scripted import open_scripted


def test_reasoning_is_kept_with_its_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    llm, say = open_scripted(tmp_path, monkeypatch)
    with llm:
        conversation = Conversation(llm, SamplingParams(temperature=0.0))
        say("<think>\nhm\n</think>\n\nYes.")
        chunks = list(conversation.ask("Well?"))
        assert "".join(chunk.reasoning for chunk in chunks) == "hm"
        assert conversation.turns[1] == {"role": "assistant", "content": "Yes.", "reasoning_content": "hm"}
        say("No.")
        list(conversation.ask_again())
        assert conversation.turns[1] == {"role": "assistant", "content": "No."}
        conversation.save(tmp_path / "talk.json")
        conversation.load(tmp_path / "talk.json")
        assert [turn["role"] for turn in conversation.turns] == ["user", "assistant"]
