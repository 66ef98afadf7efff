"""What guessing tokens gains, or costs where nothing can be guessed, as JSON.

    python -m benchmarks.speculation [MODEL] [--modes auto,lookup] [--rounds 3] [--tokens 200] [--sequences 1,8]
        [--threads N] [--draft MODEL] [--output results.json]

MODEL (default: the demo model) continues three kinds of text greedily: one that repeats itself, a piece of code that is
to be written again with a name changed, and free text, of which nothing came before. For each, and for so many answers
at once: tokens per second without speculation and with each mode, in turns, A B A B, whose ratios are told by round
with their median (above 1: guessing is quicker); the tokens that were guessed and those that were right; and whether
all answers were the same, as they have to be on the cpu backend. `--modes draft` needs `--draft`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, cast

from benchmarks import machine
from edgert import LLM, Completion, SamplingParams
from edgert.drafting import Speculate
from edgert.resolve import resolve_model

SENTENCES = "The function returns a new list. The list is sorted by the key. The key is the name of the field. "
CODE = '''def total(items, rate):
    """The sum of all prices, with tax."""
    amount = 0
    for item in items:
        price = item["price"] * item["count"]
        amount += price + price * rate
    return round(amount, 2)
'''
TEXTS = {
    "repeats": SENTENCES * 4,
    "code edit": f"{CODE}\n# The same function, but called invoice_total:\ndef invoice_total(items, rate):\n",
    "free": "Once, in a town by the sea, there lived",
}


def answers(llm: LLM, text: str, sequences: int, tokens: int) -> tuple[list[Completion], float]:
    """So many answers at once, to prompts that differ in their last words, and the seconds that all of them took."""
    prompts = [text if number == 0 else f"{text} {number}" for number in range(sequences)]
    begin = perf_counter()
    found = llm.generate(prompts, SamplingParams(max_tokens=tokens, temperature=0.0, ignore_eos=True))
    return found, perf_counter() - begin


def compared(llms: Mapping[str, LLM], text: str, sequences: int, tokens: int, rounds: int) -> dict[str, Any]:
    """One text and number of answers: all modes in turns, after one round that does not count."""
    rates: dict[str, list[float]] = {mode: [] for mode in llms}
    guessed, right = dict.fromkeys(llms, 0), dict.fromkeys(llms, 0)
    same = True
    for number in range(rounds + 1):
        plain: list[list[int]] = []
        for mode, llm in llms.items():
            found, seconds = answers(llm, text, sequences, tokens)
            ids = [answer.token_ids for answer in found]
            plain = plain or ids
            same = same and ids == plain
            if number:
                rates[mode].append(sum(map(len, ids)) / seconds)
                guessed[mode] += sum(answer.timings.guessed_tokens for answer in found)
                right[mode] += sum(answer.timings.right_guesses for answer in found)
    told: dict[str, Any] = {"off": round(median(rates["off"]), 2), "same": same}
    for mode in llms:
        if mode != "off":
            ratios = [with_guesses / without for with_guesses, without in zip(rates[mode], rates["off"], strict=True)]
            told[mode] = {
                "tokens_per_second": round(median(rates[mode]), 2),
                "ratio": round(median(ratios), 3),
                "ratios": [round(ratio, 3) for ratio in ratios],
                "guessed": guessed[mode],
                "right": right[mode],
            }
    return told


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--modes", default="auto,lookup")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=200, help="of each answer")
    parser.add_argument("--sequences", default="1,8", help="answers at once")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--draft", type=Path)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args(arguments)
    modes = ["off", *options.modes.split(",")]
    with ExitStack() as stack:
        llms = {
            mode: stack.enter_context(
                LLM(
                    options.model,
                    threads=options.threads,
                    context=1024,
                    speculate=cast("Speculate", mode),
                    draft=options.draft if mode == "draft" else None,
                )
            )
            for mode in modes
        }
        results: dict[str, dict[str, Any]] = {}
        for name, text in TEXTS.items():
            results[name] = {}
            for count in map(int, options.sequences.split(",")):
                print(f"{name}, {count} at once", file=sys.stderr)
                results[name][str(count)] = compared(llms, text, count, options.tokens, options.rounds)
    result = {
        "commit": machine.commit(),
        "machine": machine.machine(),
        "model": machine.model(resolve_model(options.model)),
        "tokens": options.tokens,
        "texts": results,
    }
    text = json.dumps(result, indent=1)
    if options.output:
        options.output.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
