"""Pack documents into rows of tokens. Whole documents share a row; a row's rest is padding without loss."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from tokenizers import Tokenizer

from demo.corpus.mix import Segment, training_documents

BATCH_TOKENS = 2048
# Most rows are short, for speed; the long ones teach the positions up to the model's context.
ROW_LENGTHS = (256, 256, 256, 1024)
_OPEN_ROWS = 8


@dataclass(frozen=True, slots=True)
class Batch:
    """`ids` [rows, length]; `weights` [rows, length] of each token as something to be predicted, 0 for no loss."""

    ids: torch.Tensor
    weights: torch.Tensor

    def targets(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(positions into the flattened rows whose next token counts, those next tokens, their weights)."""
        weights = self.weights.roll(-1, dims=1)
        weights[:, -1] = 0
        positions = weights.flatten().nonzero().squeeze(1)
        return positions, self.ids.roll(-1, dims=1).flatten()[positions], weights.flatten()[positions]


@dataclass(slots=True)
class _Row:
    ids: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)


def encode(tokenizer: Tokenizer, document: list[Segment]) -> tuple[list[int], list[float]]:
    """Token ids and the loss weight of each. Segments end where tokens end, so encoding them one by one is exact."""
    ids: list[int] = []
    weights: list[float] = []
    for segment in document:
        tokens = tokenizer.encode(segment.text, add_special_tokens=False).ids
        ids += tokens
        weights += [segment.weight] * len(tokens)
    return ids, weights


def _rows(documents: Iterator[tuple[list[int], list[float]]], length: int) -> Iterator[_Row]:
    """Rows of `length` tokens: each document goes into the fullest open row that still holds it."""
    rows = [_Row() for _ in range(_OPEN_ROWS)]
    for ids, weights in documents:
        ids, weights = ids[:length], weights[:length]
        fitting = [row for row in rows if len(row.ids) + len(ids) <= length]
        if not fitting:
            full = max(rows, key=lambda row: len(row.ids))
            rows.remove(full)
            yield full
            fitting = [_Row()]
            rows += fitting
        best = max(fitting, key=lambda row: len(row.ids))
        best.ids += ids
        best.weights += weights


def batches(tokenizer: Tokenizer, seed: int) -> Iterator[Batch]:
    """Training batches without end; the same tokenizer and seed give the same ones."""
    padding = tokenizer.token_to_id("<|endoftext|>")
    documents = (encode(tokenizer, document) for document in training_documents(seed))
    sources = {length: _rows(documents, length) for length in set(ROW_LENGTHS)}
    while True:
        for length in ROW_LENGTHS:
            rows = [next(sources[length]) for _ in range(BATCH_TOKENS // length)]
            ids = torch.full((len(rows), length), padding, dtype=torch.long)
            weights = torch.zeros(len(rows), length)
            for index, row in enumerate(rows):
                ids[index, : len(row.ids)] = torch.tensor(row.ids)
                weights[index, : len(row.weights)] = torch.tensor(row.weights)
            yield Batch(ids, weights)
