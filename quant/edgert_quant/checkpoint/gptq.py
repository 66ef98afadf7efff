"""Checkpoints of GPTQ (GPTQModel, AutoGPTQ) and AWQ (AutoAWQ), whose tensors have the shape of their kernels.

GPTQ, GPTQModel's `nn_modules/qlinear`: `qweight` int32 [in · bits / 32, out], the lowest bits of a word the first row;
`qzeros` int32 [groups, out · bits / 32], the lowest bits the first column; `scales` [groups, out]; `g_idx` [in], the
group of each column. The first version of the format (`checkpoint_format` "gptq", or none) stores zero points less one,
subtracted from whole words (`utils/model.py`), "gptq_v2" as they are.

AWQ, AutoAWQ's `modules/linear/gemm.py`: `qweight` int32 [in, out / 8] and `qzeros` int32 [groups, out / 8], in whose
words the columns have the order 0 2 4 6 1 3 5 7; `scales` [groups, out].
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from edgert_models.errors import FileFormatError, UnsupportedError
from numpy.typing import NDArray

from edgert_quant.checkpoint.dtypes import to_float32
from edgert_quant.checkpoint.folder import Checkpoint
from edgert_quant.checkpoint.integers import IntegerView, checked_order, unpack_words
from edgert_quant.checkpoint.safetensors import CheckpointTensor
from edgert_quant.checkpoint.views import SCALES, Bytes, Floats, View, companion, group_size
from edgert_quant.files import quoted

_BITS = (2, 4, 8)
_AWQ_COLUMN = (0, 4, 1, 5, 2, 6, 3, 7)
"""Where in a word of AWQ each of eight columns is: the inverse of 0 2 4 6 1 3 5 7."""


class TransposedView(IntegerView):
    """What both have in common: a tensor's columns are the matrix's rows."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        module: str,
        shape: tuple[int, int],
        *,
        method: str,
        bits: int,
        group: int,
        order: NDArray[np.int64] | None = None,
    ) -> None:
        names = [f"{module}.{part}" for part in ("qweight", "qzeros", "scales", "g_idx")]
        used = frozenset(name for name in names if name in checkpoint.tensors)
        super().__init__(f"{module}.weight", shape, used, method=method, bits=bits, group=group, order=order)
        self._checkpoint = checkpoint
        self._module = module

    def scales(self, start: int, count: int) -> Floats:
        """See `IntegerView`."""
        name = f"{self._module}.scales"
        stored = self._checkpoint.read_columns(name, start, count)
        return np.ascontiguousarray(to_float32(stored, self._checkpoint.tensor(name).dtype).T)

    def _words(self, part: str, start: int, count: int) -> tuple[NDArray[np.int32], int]:
        """The words that hold these columns, [stored rows, words], and how many columns come before them."""
        each = 32 // self.bits
        first = start // each
        last = -(-(start + count) // each)
        return self._checkpoint.read_columns(f"{self._module}.{part}", first, last - first), start - first * each


class GptqView(TransposedView):
    """`offset`: what was subtracted from zero points."""

    def __init__(self, *arguments: object, offset: int, **more: object) -> None:
        super().__init__(*arguments, **more)  # type: ignore[arg-type]
        self._offset = offset

    def codes(self, start: int, count: int) -> Bytes:
        """See `IntegerView`."""
        words = self._checkpoint.read_columns(f"{self._module}.qweight", start, count)
        return unpack_words(words.T, self.bits)[:, : self.shape[1]]

    def zeros(self, start: int, count: int) -> NDArray[np.int16]:
        """See `IntegerView`."""
        words, before = self._words("qzeros", start, count)
        ones = np.uint32(self._offset * sum(1 << shift for shift in range(0, 32, self.bits)))
        words = (words.view(np.uint32) + ones).view(np.int32)  # of all at once, as they were subtracted: carries count
        return np.ascontiguousarray(unpack_words(words, self.bits)[:, before : before + count].T).astype(np.int16)


class AwqView(TransposedView):
    """Four bits, in words whose columns change places."""

    def codes(self, start: int, count: int) -> Bytes:
        """See `IntegerView`."""
        return self._columns("qweight", start, count)

    def zeros(self, start: int, count: int) -> NDArray[np.int16]:
        """See `IntegerView`."""
        return self._columns("qzeros", start, count).astype(np.int16)

    def _columns(self, part: str, start: int, count: int) -> Bytes:
        words, before = self._words(part, start, count)
        turned = np.ascontiguousarray(words.T)
        codes = np.empty((len(turned), 8, len(words)), np.uint8)
        for column, place in enumerate(_AWQ_COLUMN):
            codes[:, column] = turned >> self.bits * place & 15
        return codes.reshape(-1, len(words))[before : before + count]


def gptq_views(checkpoint: Checkpoint, settings: Mapping[str, object]) -> Iterator[View]:
    """Every module that has a qweight. Bits follow from the shapes, because they may differ between modules."""
    stated = settings.get("checkpoint_format", settings.get("format", "gptq"))
    if stated not in ("gptq", "gptq_v2") or settings.get("is_marlin_format"):
        what = "marlin" if settings.get("is_marlin_format") else str(stated)
        reason = f"gptq in the format {quoted(what)} is not read, only gptq and gptq_v2"
        raise UnsupportedError(f"{checkpoint.folder}: {reason}")
    for module, weight, zeros, scales in _modules(checkpoint):
        groups, out = scales.shape
        fitting = [bits for bits in _BITS if zeros.shape == (groups, -(-out * bits // 32))]
        stored = settings.get("bits")
        bits = stored if isinstance(stored, int) and stored in fitting else (fitting or [0])[0]
        if not bits or weight.shape[1] != out:
            raise _misfit(checkpoint, module, weight, zeros, scales, "2, 4 or 8")
        width, order = weight.shape[0] * 32 // bits, None
        name = f"{module}.g_idx"
        if name in checkpoint.tensors:
            companion(checkpoint, f"{module}.weight", name, "order of groups", ((width,),), ("I32", "I64"))
            order = checked_order(checkpoint, f"{module}.weight", checkpoint.read_raw(name).astype(np.int64), groups)
        group = group_size(checkpoint, f"{module}.weight", width, groups, settings.get("group_size"))
        offset = 1 if stated == "gptq" else 0
        yield GptqView(
            checkpoint, module, (out, width), method="gptq", bits=bits, group=group, order=order, offset=offset
        )


def awq_views(checkpoint: Checkpoint, settings: Mapping[str, object]) -> Iterator[View]:
    """Every module that has a qweight, in the layout "gemm"."""
    for key in ("version", "checkpoint_format", "format"):
        stated = settings.get(key)
        if stated is not None and str(stated).lower() != "gemm":
            reason = f"awq in the version {quoted(str(stated))} is not read, only gemm"
            raise UnsupportedError(f"{checkpoint.folder}: {reason}")
    for module, weight, zeros, scales in _modules(checkpoint):
        groups, out = scales.shape
        if out % 8 or weight.shape[1] != out // 8 or zeros.shape != (groups, out // 8):
            raise _misfit(checkpoint, module, weight, zeros, scales, "4")
        width = weight.shape[0]
        group = group_size(checkpoint, f"{module}.weight", width, groups, settings.get("group_size"))
        yield AwqView(checkpoint, module, (out, width), method="awq", bits=4, group=group)


def _modules(
    checkpoint: Checkpoint,
) -> Iterator[tuple[str, CheckpointTensor, CheckpointTensor, CheckpointTensor]]:
    """Names of modules, with qweight, qzeros and scales, all of them matrices."""
    for name, weight in checkpoint.tensors.items():
        if not name.endswith(".qweight"):
            continue
        module = name.removesuffix(".qweight")
        zeros = companion(checkpoint, f"{module}.weight", f"{module}.qzeros", "zero points", None, ("I32",))
        scales = companion(checkpoint, f"{module}.weight", f"{module}.scales", "scales", None, SCALES)
        if weight.dtype != "I32" or any(len(part.shape) != 2 for part in (weight, zeros, scales)):
            raise _misfit(checkpoint, module, weight, zeros, scales, "4")
        yield module, weight, zeros, scales


def _misfit(
    checkpoint: Checkpoint,
    module: str,
    weight: CheckpointTensor,
    zeros: CheckpointTensor,
    scales: CheckpointTensor,
    bits: str,
) -> FileFormatError:
    parts = f"qweight {weight.dtype} {list(weight.shape)}, qzeros {list(zeros.shape)} and scales {list(scales.shape)}"
    return FileFormatError(
        checkpoint.folder, f"{parts} are no matrix of {bits} bits", field=f"tensor {quoted(module + '.weight')}"
    )
