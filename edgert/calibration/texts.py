"""Calibration text that a teacher writes: answers to prompts, kept with where they come from."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgert_models.errors import RequestError
from edgert_quant.files import quoted
from edgert_quant.gguf.output import write_whole

from edgert.calibration.teacher import Sampling, Teacher
from edgert.calibration.tokens import lines, pieces


@dataclass(frozen=True)
class Written:
    """What was written: `resumed` of the `texts` were there already; `tokens` as the model counts them."""

    path: Path
    texts: int
    tokens: int
    resumed: int
    teacher: str

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "text": str(self.path),
            "texts": self.texts,
            "tokens": self.tokens,
            "resumed_texts": self.resumed,
            "teacher": self.teacher,
        }


def read_prompts(path: Path) -> list[str]:
    """One prompt a line; RequestError where there is none."""
    found = [line.strip() for line in lines(path) if line.strip()]
    if not found:
        raise RequestError(f"{path}: has no prompts; write one on each line", parameter="prompts")
    return found


def write_texts(
    teacher: Teacher,
    prompts: Sequence[str],
    path: str | Path,
    *,
    sampling: Sampling,
    count: Callable[[str], int],
    tokens: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Written:
    """Let `teacher` answer every prompt once; with `tokens`, again and again (with other seeds) until the texts have so
    many, as `count` counts them.

    `path` is a file of JSON lines: `prompt`, `answer`, the `text` to calibrate with, `teacher`, `sampling`, `date`. If
    it is not called *.jsonl, it gets the texts alone when all are there, and the lines are in *.jsonl beside it. Lines
    that are there already are kept: the same call goes on after the last. RequestError where they are of other prompts,
    another teacher or other sampling. `progress(done, total)` counts answers, or tokens where those are wanted.
    """
    path = Path(path)
    records = path if path.suffix == ".jsonl" else path.with_suffix(".jsonl")
    if not records.absolute().parent.is_dir():
        raise RequestError(f"{path}: there is no folder {records.absolute().parent}", parameter="write")
    found = _Records(records, prompts, teacher.name, sampling, count)
    resumed = found.texts
    while found.texts < len(prompts) if tokens is None else found.tokens < tokens:
        if progress is not None:
            progress(*((found.texts, len(prompts)) if tokens is None else (found.tokens, tokens)))
        prompt = prompts[found.texts % len(prompts)]
        found.append(prompt, teacher.answer(prompt, found.texts))
    if path != records:
        write_whole(path, "".join(pieces(records)).encode())
    return Written(path, found.texts, found.tokens, resumed, teacher.name)


class _Records:
    """The lines of a file, and those that are added to it. What a killed run has written of a last line is dropped."""

    def __init__(
        self, path: Path, prompts: Sequence[str], teacher: str, sampling: Sampling, count: Callable[[str], int]
    ) -> None:
        self._path, self._teacher, self._sampling, self._count = path, teacher, sampling, count
        self.texts = self.tokens = self._size = 0
        if not path.exists():
            return
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    self.tokens += count(self._checked(line, prompts[self.texts % len(prompts)]))
                    self.texts += 1
                    self._size += len(line)

    def _checked(self, line: bytes, prompt: str) -> str:
        """The text of a line that this run would have written too, the answer apart."""
        where = f"{self._path}, line {self.texts + 1}"
        try:
            record = json.loads(line)
            known = {key: record[key] for key in ("prompt", "teacher", "sampling")}
            text = record["text"]
        except (ValueError, KeyError, TypeError):
            text = None
        if not isinstance(text, str):
            raise RequestError(f"{where}: {quoted(line.decode(errors='replace'))} is no such record", parameter="write")
        wanted = {"prompt": prompt, "teacher": self._teacher, "sampling": self._sampling.plain()}
        for key, value in wanted.items():
            if known[key] != value:
                reason = f"the {key} is {quoted(str(known[key]))}, not {quoted(str(value))}"
                raise RequestError(f"{where}: {reason}; remove it, or write another file", parameter="write")
        return text

    def append(self, prompt: str, answer: str) -> None:
        """One more line, which is on the disk when this returns."""
        text = f"{prompt}\n\n{answer}\n\n"
        record = {
            "prompt": prompt,
            "answer": answer,
            "text": text,
            "teacher": self._teacher,
            "sampling": self._sampling.plain(),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        line = json.dumps(record, ensure_ascii=False).encode() + b"\n"
        try:
            with self._path.open("ab") as file:
                file.truncate(self._size)
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            reason = f"cannot be written: {error.strerror or error}"
            raise RequestError(f"{self._path}: {reason}", parameter="write") from error
        self.texts += 1
        self.tokens += self._count(text)
        self._size += len(line)
