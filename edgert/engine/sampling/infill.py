"""The step for text between two others: it ends where the model is in doubt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgert.engine.sampling.base import Candidates, Ids, Settings, Step
from edgert.engine.sampling.shares import likeliest, softmax

_LIKELIEST = 64  # of which no token may be the beginning of another
_LEAST = 0.2  # probability of a token, with those that begin as it does
_ENDS = 3  # times the number of candidates: how much likelier text has to be than an end


@dataclass(frozen=True, slots=True)
class Infill:
    """The semantics of llama.cpp's sampler `infill` (`llama_sampler_init_infill` in its `include/llama.h`).

    Only ends stay where they are together likelier than what 3 n is to 1, of n candidates. Else tokens of which one
    begins another are counted together, for the likelier; of those only such stay as reach 0.2, and then an even share
    among them and one more; if none does, the text ends. What stays keeps its logit. `pieces` are the bytes of every
    token, `ends` the model's own ends. Looked at are the 64 likeliest texts: others cannot be likely by themselves.
    """

    pieces: Sequence[bytes]
    ends: Ids

    def __call__(self, candidates: Candidates, tokens: Sequence[int]) -> Candidates:
        """See Step."""
        shares = softmax(candidates.logits).astype(np.float64)
        is_end = np.isin(candidates.ids, self.ends)
        of_ends = float(shares[is_end].sum())
        if _ENDS * of_ends * shares.size > 1.0 - of_ends:
            return candidates.keep(is_end)
        texts = np.flatnonzero(~is_end)
        texts = texts[likeliest(candidates.logits[texts], _LIKELIEST)]
        self._unite(candidates.ids, shares, texts[np.argsort(-shares[texts], kind="stable")])
        kept = texts[shares[texts] >= _LEAST]
        if not kept.size:
            return self._only_ends(candidates, is_end)
        total = float(shares[kept].sum()) + of_ends
        kept = kept[shares[kept] >= total / (kept.size + 1)]
        places = np.sort(np.concatenate([kept, np.flatnonzero(is_end)]))
        return candidates.keep(places)

    def _unite(self, ids: Ids, shares: np.ndarray, places: Ids) -> None:
        """Give the share of each token that begins another, or is begun by it, to the likelier of the two."""
        left = {int(place): self.pieces[ids[place]] for place in places}
        for place, piece in list(left.items()):
            for other, longer in list(left.items()):
                if place not in left:
                    break
                if other == place or other not in left or not piece or not longer.startswith(piece):
                    continue
                kept, gone = (other, place) if shares[other] > shares[place] else (place, other)
                shares[kept] += shares[gone]
                shares[gone] = 0.0
                del left[gone]

    def _only_ends(self, candidates: Candidates, is_end: np.ndarray) -> Candidates:
        if is_end.any():
            return candidates.keep(is_end)
        return Candidates(self.ends[:1], np.zeros(1, np.float32)) if self.ends.size else candidates


def infill(settings: Settings) -> Step | None:
    """None where the tokens' texts are not known."""
    if settings.pieces is None:
        return None
    return Infill(settings.pieces, np.array(sorted(settings.end_ids), dtype=np.int64))
