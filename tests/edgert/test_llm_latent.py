"""A model with latent attention through the embedded API: its cache is shared and used again as any other."""

from pathlib import Path

from edgert_quant.convert import convert

from edgert import LLM, SamplingParams
from tests.support.golden import FOLDER

PROMPTS = [[5, 9, 1, 44, 3], list(range(20, 60)), [7]]
PARAMS = SamplingParams(temperature=0.0, max_tokens=6, ignore_eos=True)


def greedy(llm: LLM, prompt: list[int]) -> list[int]:
    """By evaluations of the whole text, one for each token."""
    tokens = list(prompt)
    for _ in range(6):
        tokens.append(int(llm.logits(tokens)[-1].argmax()))
    return tokens[len(prompt) :]


def test_answers_alone_together_and_again(backend_name: str, tmp_path: Path) -> None:
    convert(FOLDER / "deepseek-v3", tmp_path / "model.gguf", type="f32")
    with LLM(tmp_path / "model.gguf", backend=backend_name, threads=2, sequences=3, rows=32) as llm:
        wanted = [greedy(llm, prompt) for prompt in PROMPTS]
        assert [llm.generate(prompt, PARAMS).token_ids for prompt in PROMPTS] == wanted
        again = llm.generate([*PROMPTS, *PROMPTS], PARAMS)
        assert [answer.token_ids for answer in again] == wanted * 2
        assert again[1].usage.cached_tokens == 39  # in the midst of a block, which is copied
