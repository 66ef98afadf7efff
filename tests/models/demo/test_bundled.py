"""The bundled model is what the converter makes of the committed checkpoint, and it does its job."""

from pathlib import Path

import pytest
from demo.corpus.mix import SKILLS, held_out_samples

from edgert import LLM, SamplingParams, convert

ROOT = Path(__file__).parents[3]
BUNDLED = ROOT / "edgert/demo/model.gguf"
GREEDY = SamplingParams(max_tokens=96, temperature=0.0)


def test_bundled_model_is_converted_from_the_checkpoint(tmp_path: Path) -> None:
    convert(ROOT / "models/demo/checkpoint", tmp_path / "model.gguf", type="q4_k_m", name="edgert-demo")
    assert (tmp_path / "model.gguf").read_bytes() == BUNDLED.read_bytes()


@pytest.fixture(scope="module")
def demo() -> LLM:
    return LLM()


def test_no_model_means_the_demo(demo: LLM) -> None:
    assert demo.path.samefile(BUNDLED)
    assert demo.name == "edgert-demo"
    answer = demo.chat([{"role": "user", "content": "What is 12 plus 30?"}])
    assert answer.text == "12 + 30 = 42"
    assert answer.finish_reason == "stop"


@pytest.mark.parametrize("skill", SKILLS)
def test_held_out_samples(demo: LLM, skill: str) -> None:
    samples = held_out_samples(skill, 40)
    prompts = [demo.chat_tokens([{"role": "user", "content": sample.question}]) for sample in samples]
    answers = demo.generate(prompts, GREEDY)
    right = sum(answer.text == sample.answer for answer, sample in zip(answers, samples, strict=True))
    assert right >= 0.9 * len(samples)
