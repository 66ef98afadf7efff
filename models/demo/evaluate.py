"""Score a model on the held-out data; run from `models/` as `python -m demo.evaluate MODEL`.

MODEL is a GGUF, which `edgert.LLM` runs, or a checkpoint folder, which transformers runs. Prints a table; `--json`
prints one object instead; `--wrong` also shows the answers that were not exact.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demo.score import LONGEST_ANSWER, Model, exact_match, perplexity


class EdgertModel:
    """A GGUF in edgert's embedded API."""

    def __init__(self, path: Path, backend: str, threads: int | None) -> None:
        import edgert

        self._llm = edgert.LLM(str(path), backend=backend, threads=threads, context=1024)
        self._params = edgert.SamplingParams(max_tokens=LONGEST_ANSWER, temperature=0.0)

    def answers(self, questions: Sequence[str]) -> list[str]:
        """The greedy answer to each question."""
        with ThreadPoolExecutor(8) as pool:  # the engine batches what arrives together
            return list(pool.map(self._answer, questions))

    def _answer(self, question: str) -> str:
        return str(self._llm.chat([{"role": "user", "content": question}], self._params).text)

    def tokenize(self, text: str) -> list[int]:
        """Token ids of plain text."""
        return list(self._llm.tokenize(text, add_special=False))

    def logits(self, ids: list[int]) -> NDArray[np.float32]:
        """Logits [len(ids), vocabulary]."""
        return np.asarray(self._llm.logits(ids), dtype=np.float32)


class TransformersModel:
    """A checkpoint folder in transformers, computed in float32."""

    def __init__(self, path: Path, threads: int | None) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        if threads:
            torch.set_num_threads(threads)
        self._torch = torch
        self._tokenizer: Any = AutoTokenizer.from_pretrained(path, padding_side="left")
        self._model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        if hasattr(self._model.config, "num_experts"):
            self._model.set_experts_implementation("eager")  # the default is far slower on a CPU

    def answers(self, questions: Sequence[str]) -> list[str]:
        """The greedy answer to each question."""
        texts: list[str] = []
        for start in range(0, len(questions), 32):
            prompts = [
                self._tokenizer.apply_chat_template(
                    [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
                )
                for question in questions[start : start + 32]
            ]
            inputs = self._tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
            inputs.pop("token_type_ids", None)
            output = self._model.generate(**inputs, max_new_tokens=LONGEST_ANSWER, do_sample=False, use_cache=True)
            new = output[:, inputs["input_ids"].shape[1] :]
            texts += self._tokenizer.batch_decode(new, skip_special_tokens=True)
        return texts

    def tokenize(self, text: str) -> list[int]:
        """Token ids of plain text."""
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def logits(self, ids: list[int]) -> NDArray[np.float32]:
        """Logits [len(ids), vocabulary]."""
        with self._torch.no_grad():
            logits: NDArray[np.float32] = self._model(input_ids=self._torch.tensor([ids])).logits[0].float().numpy()
        return logits


def main() -> None:
    """Read the command line, score, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--count", type=int, default=200, help="samples per skill")
    parser.add_argument("--windows", type=int, default=64, help="windows of running text; 0 leaves perplexity out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backend", default="auto", help="for a GGUF: auto, cpu, mlx, cuda or reference")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--wrong", action="store_true")
    options = parser.parse_args()
    folder = options.model.is_dir()
    model: Model = (
        TransformersModel(options.model, options.threads)
        if folder
        else EdgertModel(options.model, options.backend, options.threads)
    )

    def show(question: str, right: str, given: str) -> None:
        print(f"{question!r}\n  right: {right!r}\n  given: {given!r}", file=sys.stderr)

    scores = exact_match(model, options.count, options.seed, show if options.wrong else None)
    found: dict[str, Any] = {"model": options.model.name, "exact_match": scores}
    if options.windows:
        found["perplexity"] = perplexity(model, options.windows)
    if options.json:
        print(json.dumps(found))
        return
    print(f"{'skill':<12} exact match")
    for skill, share in scores.items():
        print(f"{skill:<12} {share:>10.1%}")
    if options.windows:
        print(f"{'perplexity':<12} {found['perplexity']:>10.2f}")


if __name__ == "__main__":
    main()
