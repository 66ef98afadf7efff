"""Train the tokenizer, the teacher and the students; run from `models/` as `python -m demo.train STAGE --work FOLDER`.

Stages: `tokenizer`, `teacher`, `student` (labels only), `distilled`. A stage stopped early continues where it was
saved. The learning rate warms up, stays, and falls linearly to zero over the last part, so that `--steps` may still be
changed on the way.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from demo import architectures, distill, tokenizer
from demo.batches import BATCH_TOKENS, batches
from demo.corpus.mix import SKILLS, held_out_samples, turn
from demo.corpus.sample import Sample
from demo.optimizer import optimizers

WARM_UP, FALL = 100, 0.4  # steps; share of all steps
SAVE_EVERY = 150  # steps
STAGES = ("teacher", "student", "distilled")


def rate(step: int, steps: int) -> float:
    """The learning rate's factor at a step."""
    return min(1.0, (step + 1) / WARM_UP, (steps - step) / (FALL * steps))


@torch.no_grad()
def forced_accuracy(model: PreTrainedModel, tokens: Tokenizer, samples: list[Sample]) -> float:
    """Share of samples whose whole answer is the most likely at every token: what greedy decoding would give."""
    right = 0
    for sample in samples:
        prompt = tokens.encode(turn(sample.question)).ids
        answer = tokens.encode(f"{sample.answer}<|im_end|>").ids
        logits = model(input_ids=torch.tensor([prompt + answer[:-1]]), logits_to_keep=len(answer)).logits[0]
        right += logits.argmax(-1).tolist() == answer
    return right / len(samples)


def report(model: PreTrainedModel, tokens: Tokenizer, count: int) -> dict[str, float]:
    """Accuracy by skill on `count` held-out samples each."""
    model.eval()
    found = {skill: forced_accuracy(model, tokens, held_out_samples(skill, count)) for skill in SKILLS}
    model.train()
    return {skill: round(share, 3) for skill, share in found.items()}


def train(
    stage: str,
    work: Path,
    steps: int,
    lr: float,
    seed: int,
    *,
    name: str = "",
    variant: str = "qwen3moe",
    guide_folder: Path | None = None,
    dtype: torch.dtype = torch.bfloat16,
) -> None:
    """Train one model to `steps` steps of `BATCH_TOKENS` tokens and save it in `work/name` (the stage's, if empty).

    `guide_folder` is the checkpoint that a distilled student learns from, instead of the teacher it starts from.
    """
    name = name or stage
    tokens = Tokenizer.from_file(str(work / "tokenizer" / "tokenizer.json"))
    model = architectures.teacher(seed) if stage == "teacher" else architectures.student(seed, variant)
    guide: PreTrainedModel | None = None
    if stage != "teacher":
        parent = architectures.load(work / "teacher")
        architectures.inherit(model, parent)
        if stage == "distilled":
            guide = parent if guide_folder is None else architectures.load(guide_folder)
    chosen = optimizers(model, lr, stage == "teacher", dtype)
    state_path, start, spent = work / f"{name}.state", 0, 0.0
    if state_path.exists():
        state = torch.load(state_path)
        start, spent = state["step"], state["seconds"]
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(chosen, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
    stream = batches(tokens, seed + start)  # what was trained on is not drawn again
    began, running = time.perf_counter() - spent, 0.0
    model.train()
    for step in range(start, steps):
        value = distill.loss(model, next(stream), guide, dtype)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in chosen:
            for group in optimizer.param_groups:
                group["lr"] = lr * rate(step, steps)
            optimizer.step()
            optimizer.zero_grad()
        running += value.item()
        done = step + 1
        if done % 50 == 0:
            print(f"{name} {done}/{steps} loss {running / 50:.4f} {time.perf_counter() - began:.0f} s", flush=True)
            running = 0.0
        if done % SAVE_EVERY == 0 or done == steps:
            print(json.dumps(report(model, tokens, 60)), flush=True)
            saved_state = {
                "step": done,
                "seconds": time.perf_counter() - began,
                "model": model.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in chosen],
            }
            torch.save(saved_state, state_path.with_suffix(".new"))
            state_path.with_suffix(".new").replace(state_path)
            save(model, work, name)
    print(f"{name}: {steps * BATCH_TOKENS:,} tokens in {(time.perf_counter() - began) / 60:.1f} minutes", flush=True)


def save(model: PreTrainedModel, work: Path, name: str) -> None:
    """The model in `work/name`, as transformers loads it: BF16 weights, config, tokenizer."""
    config = model.config.to_dict()
    copy = type(model)(type(model.config).from_dict(config)).to(torch.bfloat16)
    copy.load_state_dict(model.state_dict())
    copy.config.use_cache = True
    copy.generation_config.use_cache = True
    copy.generation_config.do_sample = False  # its answers have one right form
    copy.save_pretrained(work / name)
    for source in (work / "tokenizer").iterdir():
        (work / name / source.name).write_bytes(source.read_bytes())


def main() -> None:
    """Read the command line and run a stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=("tokenizer", *STAGES))
    parser.add_argument("--work", type=Path, required=True, help="folder of everything that is made")
    parser.add_argument("--steps", type=int, default=2400, help=f"steps of {BATCH_TOKENS} tokens")
    parser.add_argument("--lr", type=float, help="default: 3e-3 for the teacher, 1e-3 for the students")
    parser.add_argument("--seed", type=int, default=0, help="of the weights a model starts with, and of its batches")
    parser.add_argument("--name", default="", help="folder of the result within --work (default: the stage's name)")
    parser.add_argument("--variant", choices=architectures.VARIANTS, default="qwen3moe", help="family of the student")
    parser.add_argument("--guide", type=Path, help="checkpoint to distill, if not the teacher")
    parser.add_argument("--precision", choices=("bfloat16", "float32"), default="bfloat16", help="of matrix products")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    lr = options.lr or (3e-3 if options.stage == "teacher" else 1e-3)
    if options.stage == "tokenizer":
        tokenizer.save(tokenizer.build(), options.work / "tokenizer")
    else:
        train(
            options.stage,
            options.work,
            options.steps,
            lr,
            options.seed,
            name=options.name,
            variant=options.variant,
            guide_folder=options.guide,
            dtype=getattr(torch, options.precision),
        )


if __name__ == "__main__":
    main()
