"""Every family in shapes that nobody chose: edgert beside `transformers`, and beside llama.cpp where it is to be had.

    python -m tests.golden.fuzz [NAME …] [--seeds 0:4] [--llama-cpp SOURCES] [--work FOLDER]

NAMEs are golden checkpoints; of each, `drawn.py` makes one with other sizes for every seed. Logits of F32 must be those
of `transformers` in one step, token by token and in mixed batches, those of Q8_0 close. With `EDGERT_LLAMA_CPP_LIB`
(see CONTRIBUTING.md) the F32 file must give the same in llama.cpp, unless the converter has warned; with the sources of
llama.cpp, its converter must write the same tensors, and its file give the same in ours. Prints a line of JSON for each
model, and what failed at the end. Needs the dependency group `demo`; for llama.cpp's converter, its `gguf-py`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from edgert_models.errors import ConversionError, UnsupportedError
from edgert_quant.blocks import dequantize
from edgert_quant.checkpoint import Checkpoint
from edgert_quant.convert import convert
from edgert_quant.gguf import GgufFile
from edgert_runtimes.registry import get_backend
from edgert_runtimes.weights import GgufWeights
from numpy.typing import NDArray

from tests.golden.drawn import drawn
from tests.golden.make import GOLDENS, LENGTH, make
from tests.support import llama_cpp
from tests.support.golden import logits_in_steps, logits_of, relative_error

EXACT, Q8_0, IN_LLAMA_CPP = 1e-4, 2e-2, 1e-3
LONGER = 22  # than a block of the cache
GAP = 5e-4  # between experts that are chosen and not: enough for rounding in F32
NOT_THEIRS = ("granitehybrid", "granitehybrid-dense", "bamba", "nemotron-h")
"""What llama.cpp's converter makes no good file of: it does not know layers as Granite calls them now, orders rows of
Bamba as if whole heads were rotated, and takes Nemotron-H for a model with experts where the config counts some.
"""
UNSAID = ("deepseek-v3", "moonlight")
"""Whose router it does not name where transformers has not named it: llama.cpp then takes a softmax."""
OF_WRITERS = ("general.", "tokenizer.", "quantize.", "edgert.")
Logits = NDArray[np.float32]


class Trial:
    """One checkpoint and what is found out about it."""

    def __init__(self, name: str, seed: int, folder: Path, converter: Callable[[Path, Path], None] | None) -> None:
        self.said: dict[str, Any] = {"name": name, "seed": seed}
        self.faults: list[str] = []
        self.file = folder / "f32.gguf"
        golden = drawn(name, seed)
        self.half = golden.dtype == torch.float16
        self.said["config"] = golden.config
        checkpoint = folder / "checkpoint"
        try:
            length = LONGER if seed % 3 == 2 else LENGTH
            made = make(checkpoint, golden, seeds=range(seed * 1000, seed * 1000 + 40), gap=GAP, length=length)
        except Exception as error:  # not every drawn config makes sense
            self.said["impossible"] = f"{type(error).__name__}: {error}"[:300]
            return
        self.said["made"] = made
        with np.load(checkpoint / "logits.npz") as arrays:
            self.tokens, self.wanted = arrays["tokens"], arrays["logits"]
        try:
            self.warnings = convert(checkpoint, self.file, type="f32").warnings
        except UnsupportedError as error:
            self.said["refused"] = str(error)
            return
        except ConversionError as error:
            self.faults.append(str(error).replace(str(folder), "")[:200])
            return
        self.said["warnings"] = [text for text in self.warnings if "llama.cpp" in text]
        self.ours(folder)
        self.theirs()
        if converter is not None and name not in NOT_THEIRS:
            self.converted(checkpoint, folder / "theirs.gguf", converter)

    def check(self, what: str, found: Logits, limit: float) -> None:
        """Note by how much logits are off."""
        error = max(relative_error(found, self.wanted))
        self.said[what] = float(f"{error:.2g}")
        if not error <= limit:
            self.faults.append(f"{what}: {error:.2g}")

    def ours(self, folder: Path) -> None:
        """F32 and Q8_0 in our backends."""
        for name in ("reference", "cpu"):
            backend = get_backend(name)
            self.check(name, logits_of(backend, self.file, self.tokens), EXACT)
            self.check(f"{name}, in steps", logits_in_steps(backend, self.file, self.tokens), EXACT)
        rings = logits_in_steps(get_backend("cpu"), self.file, self.tokens, rings=True)
        self.check("cpu, with rings", rings, EXACT)
        convert(folder / "checkpoint", folder / "q8_0.gguf", type="q8_0")
        found = logits_of(get_backend("cpu"), folder / "q8_0.gguf", self.tokens)
        # Here and there rounding turns a choice of experts.
        rows = np.linalg.norm(found - self.wanted, axis=-1) / np.linalg.norm(self.wanted, axis=-1)
        self.said["q8_0"] = float(f"{np.median(rows):.2g}")
        if not np.median(rows) <= Q8_0:
            self.faults.append(f"q8_0: {np.median(rows):.2g}")

    def theirs(self) -> None:
        """The file in llama.cpp: as ours, or with a warning of it."""
        if not os.environ.get("EDGERT_LLAMA_CPP_LIB"):
            return
        try:
            found = in_llama_cpp(self.file, self.tokens)
        except (AssertionError, BrokenProcessPool) as error:
            self.said["llama.cpp"] = str(error).replace(str(self.file), "")[:60]
            if not any("will not load" in text for text in self.warnings):
                self.faults.append("llama.cpp does not load the file, and nobody has warned")
            return
        error = max(relative_error(found, self.wanted))
        self.said["llama.cpp"] = float(f"{error:.2g}")
        if any("will not load" in text for text in self.warnings):
            self.faults.append("llama.cpp loads the file, against a warning")
        if not error <= IN_LLAMA_CPP and not self.said["warnings"]:
            self.faults.append(f"llama.cpp: {error:.2g}, and nobody has warned")

    def converted(self, checkpoint: Path, file: Path, converter: Callable[[Path, Path], None]) -> None:
        """The file of llama.cpp's converter: the same tensors as ours, and the same logits in ours."""
        try:
            converter(checkpoint, file)
        except Exception as error:  # it does not take every config
            self.said["converter"] = f"{type(error).__name__}: {error}"[:200]
            return
        with GgufFile.open(self.file) as a, GgufFile.open(file) as b:
            self.same_tensors(a, b)
            ours, others = ({key for key in each.metadata if not key.startswith(OF_WRITERS)} for each in (a, b))
            self.said["only ours"], self.said["only theirs"] = sorted(ours - others), sorted(others - ours)
            values = [(key, str(a.metadata[key]), str(b.metadata[key])) for key in sorted(ours & others)]
            self.said["other values"] = [each for each in values if each[1] != each[2]]
        try:
            found = logits_of(get_backend("reference"), file, self.tokens)
        except UnsupportedError as error:
            self.faults.append(f"the file of llama.cpp's converter is refused: {error}")
            return
        error = max(relative_error(found, self.wanted))
        self.said["of llama.cpp's converter"] = float(f"{error:.2g}")
        if error <= EXACT or self.said["warnings"]:
            return
        try:  # where the file does not say all that the config says
            self.said["both"] = both = max(relative_error(found, in_llama_cpp(file, self.tokens)))
        except (AssertionError, BrokenProcessPool):
            self.said["both"] = "llama.cpp does not load its own file"
            return
        if both > IN_LLAMA_CPP and not self.said["name"].startswith(UNSAID):
            self.faults.append(f"llama.cpp's file in ours and in llama.cpp: {both:.2g}")

    def same_tensors(self, a: GgufFile, b: GgufFile) -> None:
        """Names, shapes and numbers."""
        weights = [GgufWeights(each) for each in (a, b)]
        # Theirs may have gates and ups of experts in one.
        names = [{name for name in each.weights if "gate_up_exps" not in name} for each in weights]
        names[0] -= {"output.weight"} - names[1]  # which ours has where llama.cpp wants it
        for what, left in (("misses", names[1] - names[0]), ("adds", names[0] - names[1])):
            if left and not self.said["warnings"]:
                self.faults.append(f"our file {what} {', '.join(sorted(left)[:4])}")
        for name in sorted(names[0] & names[1]):
            shapes = [tuple(n for n in each.weights[name].shape if n > 1) for each in weights]
            if shapes[0] != shapes[1]:
                self.faults.append(f"{name} is {shapes[0]} in ours, {shapes[1]} in theirs")
                continue
            x, y = (dequantize(each.read(name), each.weights[name].type).ravel() for each in weights)
            falcon = self.said["name"].startswith("falcon-h1")
            if falcon and name.endswith(".bias"):
                continue  # they scale biases as they scale matrices
            # They add one to norms, find exponentials and scale, in the precision of the checkpoint.
            rough = 1e-3 if self.half and (falcon or "norm" in name or name.endswith("ssm_a")) else 1e-6
            if not np.allclose(x, y, rtol=max(rough, 1e-5), atol=rough):
                self.faults.append(f"{name} differs")


def in_llama_cpp(file: Path, tokens: NDArray[np.int64]) -> Logits:
    """Logits of llama.cpp, in a process of its own: it aborts where it does not like a model."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        return np.stack(list(pool.map(llama_cpp.logits, [file] * len(tokens), tokens.tolist())))


def converter_of(sources: Path) -> Callable[[Path, Path], None]:
    """llama.cpp's converter, to F32, without a vocabulary."""
    sys.path.insert(0, str(sources / "gguf-py"))
    sys.path.append(str(sources))  # which has a folder of tests
    import conversion
    import gguf
    import torch

    def no_vocabulary(model: Any) -> None:
        model.gguf_writer.add_tokenizer_model("none")
        model.gguf_writer.add_vocab_size(model.hparams["vocab_size"])

    def write(folder: Path, file: Path) -> None:
        hparams = conversion.ModelBase.load_hparams(folder, False)
        with Checkpoint.open(folder) as checkpoint:
            names = list(checkpoint.tensors)
        own = conversion.get_model_class(conversion.get_model_architecture(hparams, conversion.ModelType.TEXT))
        without = own.supports_mtp_export and not any("mtp" in name or "eh_proj" in name for name in names)
        plain = {"set_vocab": no_vocabulary, "model_arch": own.model_arch, "no_mtp": without}
        kind = type(own.__name__, (own,), plain)
        with torch.inference_mode():
            kind(folder, gguf.LlamaFileType.ALL_F32, file).write()

    return write


def main() -> None:
    """Try, and say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--seeds", default="0:4", metavar="FIRST:END")
    parser.add_argument("--llama-cpp", type=Path)
    parser.add_argument("--work", type=Path)
    given = parser.parse_args()
    transformers.logging.set_verbosity_error()
    converter = None if given.llama_cpp is None else converter_of(given.llama_cpp)
    first, end = map(int, given.seeds.split(":"))
    failed = 0
    for name in given.names or GOLDENS:
        for seed in range(first, end):
            with tempfile.TemporaryDirectory(dir=given.work) as folder:
                try:
                    trial = Trial(name, seed, Path(folder), converter)
                except Exception:
                    traceback.print_exc()
                    print(json.dumps({"name": name, "seed": seed, "faults": ["raised"]}), flush=True)
                    failed += 1
                    continue
            failed += bool(trial.faults)
            print(json.dumps({**trial.said, "faults": trial.faults}), flush=True)
    sys.exit(f"{failed} models failed" if failed else None)


if __name__ == "__main__":
    main()
