"""A sweep of heads at every position, or at selected ones, of one batch of prompts.

All heads of a layer are ablated together, in pieces of (head, prompt) rows (docs/method.md sections 2
and 3).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..model.decoder import Decoder
from ..model.direct_effect import check_error
from ..model.memory import BatchLimit
from ..model.replay import Replay, cut_lengths
from .ablation_batch import AblationBatch, Rows, cut
from .batches import Recorded, stored
from .sweep_result import SweepResult, zeros_where_measured
from .workers import Workers


class SweepBatch(AblationBatch):
    """A batch of prompts whose clean pass is recorded, ready for one ablation after the other."""

    def __init__(
        self,
        model: Decoder,
        recorded: Recorded,
        mean_z: Tensor | None,
        selected: Bool[Tensor, "prompt position layer head"] | None,
        limit: BatchLimit,
    ) -> None:
        super().__init__(model, recorded, mean_z, limit)
        self.selected = None if selected is None else recorded.of(selected).to(model.device)
        shape = (len(self.quantities), model.n_layers, model.n_heads, *self.clean.scale.shape)
        self.out = torch.empty(shape, dtype=self.clean.direct_effect.dtype, device=model.device)

    def run(
        self, replay: Replay, workers: Workers, ablation: str, chosen: dict[int, list[int]]
    ) -> Iterator[float]:
        """Ablate heads, given by layer; yields the share of the work done since the last one."""
        self.out.fill_(torch.nan)
        pieces = [
            piece
            for layer, heads in chosen.items()
            for piece in self._pieces(ablation, layer, heads)
        ]
        yield from self.run_pieces(replay, workers, pieces)

    def _pieces(self, ablation: str, layer: int, heads: list[int]) -> list[Rows]:
        """All rows of a layer, longest first, cut into pieces of about equal size that fit into memory."""
        prompts, positions = self.clean.scale.shape
        rows = torch.cartesian_prod(torch.tensor(heads), torch.arange(prompts))
        lengths = torch.full((len(rows),), positions)
        if self.selected is not None:
            lengths = self._needed(layer).cpu()[rows[:, 1], rows[:, 0]]
            order = lengths.argsort(descending=True, stable=True)[: int((lengths > 0).sum())]
            rows, lengths = rows[order], lengths[order]
        rows, most = rows.to(self.model.device), lengths.tolist()
        pieces = []
        for some in cut(most, self.limit.size):
            head, prompt = rows[some.start : some.stop].T
            pieces.append(Rows(ablation, layer, head, prompt, most[some.start]))
        return pieces

    def _needed(self, layer: int) -> Int[Tensor, "prompt head"]:
        """How many positions of each head to replay: up to its last selected one, rounded up to one of a few
        lengths; 0 where none is selected."""
        assert self.selected is not None
        selected = self.selected[:, :, layer]
        ends = torch.arange(1, selected.shape[1] + 1, device=selected.device)
        return cut_lengths((selected * ends[:, None]).amax(1), selected.shape[1])

    def keep(
        self,
        rows: Rows,
        measured: Float[Tensor, "quantity row position"],
        changed: Tensor,
        more: Any,
    ) -> None:
        if self.selected is not None:
            wanted = self.selected[rows.prompt, : rows.length, rows.layer, rows.head]
            measured = measured.masked_fill(~wanted, torch.nan)
        self.out[:, rows.layer, rows.head, rows.prompt, : rows.length] = measured

    def result(self, chosen: dict[int, list[int]]) -> SweepResult:
        """A copy of what the last `run` measured, once its terms are known to add up.

        Raises:
            ExactnessError: they do not.
        """
        out = self.out.permute(0, 3, 4, 1, 2)
        values = {n: stored(array.clone()) for n, array in zip(self.quantities, out, strict=True)}
        parts = values["from_heads"] + values["from_mlps"] + values["from_norm"]
        if self.model.has_post_norms:
            parts = parts + values["from_post_norms"]
        else:
            values["from_post_norms"] = zeros_where_measured(values["from_norm"])
        asked = torch.zeros(parts.shape[2:], dtype=torch.bool)
        for layer, heads in chosen.items():
            asked[layer, heads] = True
        asked = asked.expand(parts.shape)
        if self.selected is not None:
            asked = asked & self.selected.cpu()
        differences = (values["self_repair"] - parts).abs()[asked]
        # NaN in an ablated run stays NaN: refused.
        error = float(differences.max()) if len(differences) else 0.0
        check_error("decomposition", error, self.model.dtype_name)
        return SweepResult(
            direct_effect=stored(self.clean.direct_effect),
            scale=stored(self.clean.scale),
            conservation_error=self.clean.conservation_error,
            decomposition_error=error,
            has_post_norms=self.model.has_post_norms,
            **values,
        )
