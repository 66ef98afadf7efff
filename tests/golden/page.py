"""Writes docs/models.md: `python -m tests.golden.page`, or `make docs`.

What it says of families is read from the registry and from the golden checkpoints beside this file; the rest is the
text below.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from pathlib import Path

from edgert_models import ops
from edgert_models.architecture import Architecture
from edgert_models.graph import Plan
from edgert_models.refused import NEEDS
from edgert_models.registry import all_architectures, build_plan, spec_from_config
from edgert_models.router import Router
from edgert_runtimes.registry import backend_names

from tests.support.golden import FOLDER, NAMES, REFUSED_BY

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
COMMON = (ops.Embed, ops.RmsNorm, ops.Linear, ops.Add, ops.GatedActivation, ops.Rope, ops.Attend, ops.PickRows)

HEAD = """# Models

<!-- Made by `make docs` from the architectures and the golden checkpoints; their notes are in the architectures. -->

Every family is tested on tiny random checkpoints: converted in F32 and Q8_0, their logits are those of `transformers`
on every backend named (Grok's, which it has not, those of a model in torch). Ops are those beside embedding, RMS norm,
matrix products, addition, SiLU gates, rope and plain attention; what is in brackets is what they do beside the usual.

Beside those, `python -m tests.golden.fuzz` draws others of the same families: numbers of heads and layers, widths,
experts, biases, rope, windows shorter than the text, configs as they were before transformers 5, shards. Of 513 such
models, once what they had found was mended, logits in F32 were within 1.5e-6 of those of `transformers` (relative, in
one step, token by token and in mixed batches, `reference` and `cpu`; MXFP4 on `cpu`, whose inputs are rounded, .8 %),
with Q8_0 within 1.3 % (the middle row of each); llama.cpp's were within 2e-4 where `edgert convert` warned of nothing.
"""

REST = """
Honoured in all of them: grouped queries, head sizes that are not width / heads, tied embeddings, rope scaling
(linear, llama3, yarn, longrope, and dynamic, which scales nothing within `max_position_embeddings`; beyond that edgert
warns, and scales nothing either), normalised and plain expert weights, checkpoints with an expert a tensor or all
experts in one. Of layers with a window, or attention in chunks, the cache keeps what their window sees.

Refused by name in all of them: biases that are not known, activations other than SiLU where nothing else is
said, and yarn whose `truncate` is not that of the family (false in gpt-oss, true elsewhere).
"""

NEXTN = """
## Layers for multi-token prediction
They are kept in the file, under llama.cpp's names (`nextn_predict_layers`, `blk.N.nextn.*` after the model's own
layers), and not run yet: of {kept}. llama.cpp loads these files. It would not load such files of {asked}, whose layers
are kept with `--mtp` (`mtp=True`) only, under names of the same kind; `--no-mtp` leaves out any. The report says what
is left out.
"""

STOCK = """
## In stock llama.cpp
`edgert convert` warns where llama.cpp would answer differently, or not load the file; the notes above say of what.
Of all families: it ignores yarn's `beta_fast` and `beta_slow` other than 32 and 1, and `truncate: false` as in
gpt-oss, so that positions turn by slightly other angles. On a tiny model with betas of 8 and 0.5 its logits were 1.6 %
away from those of transformers within 16 positions, ours 2e-7; where the three make no difference, both agree within
3e-7. It reads llama3's factors in few families (Llama, EXAONE, Granite, Gemma 4), and does not load files that have
them in others. Tied models get an output matrix of their own where llama.cpp wants one (OLMo 2, OLMoE, gpt-oss, …).
"""

REFUSED = """
## Models with experts that are refused
Of the causal language models with experts in `transformers`, these are refused by name. They need

| class | what edgert does not do yet |
|---|---|
"""


def page() -> str:
    """The whole page."""
    plans = {name: build_plan(spec_from_config(config_of(name))) for name in NAMES}
    rows = [row(architecture, goldens_of(architecture), plans) for architecture in all_architectures()]
    table = "| family | GGUF | Hugging Face classes | tested on | ops | backends |\n|---|---|---|---|---|---|\n"
    notes = "\n## Family by family\n" + "".join(f"- **{a.title}**: {a.notes}\n" for a in all_architectures() if a.notes)
    refused = REFUSED + "".join(f"| `{name}` | {NEEDS[name]} |\n" for name in sorted(NEEDS))
    return HEAD + "\n" + table + "".join(rows) + notes + REST + predicting() + STOCK + refused


def predicting() -> str:
    """Which families have layers for multi-token prediction."""
    found: dict[bool, list[str]] = {True: [], False: []}
    for architecture in all_architectures():
        if architecture.nextn and architecture.title not in found[architecture.nextn.in_llama_cpp]:
            found[architecture.nextn.in_llama_cpp].append(architecture.title)
    return NEXTN.format(kept="; ".join(found[True]), asked="; ".join(found[False]))


def row(architecture: Architecture, goldens: Iterable[str], plans: Mapping[str, Plan]) -> str:
    """A family's row of the table."""
    goldens = list(goldens)
    needed = sorted({text for name in goldens for text in needs(plans[name])})
    refusing = {backend for name in goldens for backend in REFUSED_BY.get(name, ())}
    cells = (
        architecture.title,
        f"`{architecture.name}`",
        ", ".join(f"`{name}`" for name in architecture.hf_classes),
        ", ".join(goldens),
        ", ".join(needed),
        "all" if not refusing else ", ".join(name for name in backend_names() if name not in refusing),
    )
    return "| " + " | ".join(cells) + " |\n"


def needs(plan: Plan) -> set[str]:
    """The ops of a plan that are not common, and common ones that do more than the usual: with what."""
    found = set()
    for op in plan.ops:
        more = changed(op)
        if more or not isinstance(op, COMMON):
            found.add(type(op).__name__ + (f" ({', '.join(more)})" if more else ""))
    return found


def changed(x: ops.Op | Router) -> list[str]:
    """What fields of an op, or of its router, say that is not the usual."""
    found = []
    for field in fields(x):
        value = getattr(x, field.name)
        if field.default is MISSING or value == field.default:
            continue
        if isinstance(value, Router):
            found += changed(value)
        elif field.name in ("kind", "scoring"):
            found.append(str(value))
        else:
            found.append(("not " if value is False else "") + field.name.replace("_", " "))
    return found


def goldens_of(architecture: Architecture) -> list[str]:
    """The golden checkpoints of its classes, and of its name in GGUF: a class may be several architectures."""
    found = []
    for name in NAMES:
        config = config_of(name)
        own = not architecture.hf_classes or config["architectures"][0] in architecture.hf_classes
        if own and spec_from_config(config).architecture == architecture.name:
            found.append(name)
    return found


def config_of(name: str) -> dict[str, list[str]]:
    """The config.json of a golden checkpoint."""
    found: dict[str, list[str]] = json.loads((FOLDER / name / "config.json").read_text(encoding="utf-8"))
    return found


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
