"""What holding answers to a form costs, as JSON.

    python -m benchmarks.structured [FILE ...] [--runs 5] [--tokens 400] [--threads N]

For every GGUF file with a vocabulary (default: the demo model): seconds to sort the vocabulary, and for several forms
seconds to compile, and microseconds a token for the mask, along a text of that form (median, 99 %, largest), the first
time and again. For those that are whole models also tokens per second of decoding, free and held to a schema, in turns:
the median of their ratios, without temperature and with it.
"""

from __future__ import annotations

import argparse
import json
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from edgert_quant.gguf import GgufFile

from benchmarks.machine import commit, machine
from edgert import LLM, SamplingParams, StructuredOutputs
from edgert.constraints import AnswerForm, Compiler
from edgert.resolve import resolve_model
from edgert.text import Tokenizer

ITEM = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "price": {"type": "number"},
        "tags": {"type": "array", "items": {"enum": ["new", "sale", "last"]}},
    },
    "required": ["name", "price", "tags"],
    "additionalProperties": False,
}
ITEMS = [{"name": f"A thing of some use, number {i}", "price": 1.5 * i, "tags": ["new", "last"]} for i in range(12)]
FORMS: dict[str, tuple[dict[str, Any], str]] = {
    "schema": ({"json": {"type": "array", "items": ITEM}}, json.dumps(ITEMS)),
    "any object": ({"json_object": True}, json.dumps({"items": ITEMS}, indent=2)),
    "regex": ({"regex": r"([A-Z][a-z]+ [0-9]{1,4}\.\n)*"}, "Number 7.\nAgain 42.\n" * 20),
    "grammar": (
        {"grammar": 'root ::= (expr ";")+\nexpr ::= term ([-+] term)*\nterm ::= [0-9]+ | "(" expr ")"'},
        "(1+2)-3+(44-(5+6));" * 20,
    ),
}


def masks(compiler: Compiler, tokenizer: Tokenizer, given: dict[str, Any], text: str) -> dict[str, Any]:
    begin = perf_counter()
    form = AnswerForm(StructuredOutputs(**given))
    compiler.compile(form, begins=False)
    found: dict[str, Any] = {"compile_seconds": round(perf_counter() - begin, 4)}
    tokens = tokenizer.encode(text, add_special=False)
    for name in ("first", "again"):
        constraint = compiler.compile(form, begins=False)
        times = []
        for token in tokens:
            begin = perf_counter()
            allowed = constraint.allowed()
            times.append((perf_counter() - begin) * 1e6)
            assert allowed[token], (name, tokenizer.decode([token]))
            assert constraint.accept(token)
        quantiles = [median(times), float(np.quantile(times, 0.99)), max(times), sum(times) / len(times)]
        names = ("median", "percentile_99", "largest", "mean")
        found[f"microseconds_{name}"] = {key: round(value, 1) for key, value in zip(names, quantiles, strict=True)}
    return found


def vocabulary(path: str) -> dict[str, Any]:
    with GgufFile.open(resolve_model(None if path == "demo" else path)) as file:
        tokenizer = Tokenizer.from_gguf(file.metadata)
    compiler = Compiler(tokenizer, tokenizer.vocab_size)
    begin = perf_counter()
    compiler.compile(AnswerForm(StructuredOutputs(choice=["a"])), begins=False)
    found: dict[str, Any] = {
        "file": path.rsplit("/", 1)[-1],
        "tokens": tokenizer.vocab_size,
        "first_compile_seconds": round(perf_counter() - begin, 3),
        "forms": {name: masks(compiler, tokenizer, *each) for name, each in FORMS.items()},
    }
    compiler.close()
    return found


def is_model(path: str) -> bool:
    """Whether there is more in a file than a vocabulary."""
    with GgufFile.open(resolve_model(None if path == "demo" else path)) as file:
        return bool(file.tensors)


def decoding(path: str, runs: int, tokens: int, threads: int | None) -> dict[str, Any]:
    held = StructuredOutputs(json={"type": "array", "items": ITEM, "minItems": tokens})
    found = {}
    with LLM(None if path == "demo" else path, speculate="off", context=1024, threads=threads) as llm:
        prompt = llm.tokenize("Many things, as JSON:")
        for temperature in (0.0, 0.8):
            ratios, free_rates = [], []
            for run in range(runs + 1):
                common: dict[str, Any] = {"max_tokens": tokens, "seed": run, "temperature": temperature}
                free = llm.generate(prompt, SamplingParams(ignore_eos=True, **common)).timings.decode_tokens_per_second
                form = llm.generate(prompt, SamplingParams(structured_outputs=held, **common))
                assert len(form.token_ids) == tokens
                if run:  # the first warms up
                    ratios.append(form.timings.decode_tokens_per_second / free)
                    free_rates.append(free)
            found[f"temperature {temperature}"] = {
                "free_tokens_per_second": round(median(free_rates), 1),
                "held_to_free": round(median(ratios), 3),
                "ratios": [round(ratio, 3) for ratio in ratios],
            }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", default=["demo"])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=400, help="of each answer")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    found = {
        "commit": commit(),
        "machine": machine(),
        "vocabularies": [vocabulary(path) for path in options.files],
        "decoding": {
            path.rsplit("/", 1)[-1]: decoding(path, options.runs, options.tokens, options.threads)
            for path in options.files
            if is_model(path)
        },
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
