"""Write texts to calibrate on and to judge by, which share no sample; from `models/` as `python -m demo.texts FOLDER`.

`calibration.txt` is of training documents as they are drawn; `held-out.txt` of dialogues whose every sample is held
out and of held-out running text, in the corpus's proportions. Both hold the special tokens of turns as text.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from random import Random

from demo.corpus.mix import SKILLS, draw, training_documents, turn
from demo.corpus.text import held_out_text

_TURNS = (1, 1, 2, 3, 4)  # of a dialogue
_TEXT_SHARE, _PIECE = 0.3, 600  # share of characters that is running text; characters of a piece


def calibration(seed: int) -> Iterator[str]:
    """Training documents without end."""
    for document in training_documents(seed):
        yield "".join(segment.text for segment in document)


def held_out(seed: int) -> Iterator[str]:
    """Held-out dialogues and pieces of held-out running text without end."""
    rng, texts, lengths = Random(f"judged {seed}"), held_out_text(), [1, 1]
    while True:
        if lengths[0] < _TEXT_SHARE * sum(lengths):
            text = rng.choice(texts)
            start = text.rfind("\n", 0, rng.randrange(max(1, len(text) - _PIECE // 2))) + 1
            piece = text[start : start + _PIECE] + "<|endoftext|>"
            lengths[0] += len(piece)
        else:
            samples = [draw(rng, rng.choice(list(SKILLS)), held_out=True) for _ in range(rng.choice(_TURNS))]
            piece = "".join(f"{turn(sample.question)}{sample.answer}<|im_end|>\n" for sample in samples)
            lengths[1] += len(piece)
        yield piece


def written(pieces: Iterator[str], characters: int) -> str:
    """Whole pieces until there are `characters`."""
    found: list[str] = []
    length = 0
    while length < characters:
        found.append(next(pieces))
        length += len(found[-1])
    return "".join(found)


def main() -> None:
    """Read the command line and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--characters", type=int, default=200_000, help="of the calibration text; a quarter held out")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    text = {
        "calibration.txt": written(calibration(options.seed), options.characters),
        "held-out.txt": written(held_out(options.seed), options.characters // 4),
    }
    for name, content in text.items():
        (options.folder / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
