"""Ablations measured at drawn tokens alone, on one batch of prompts, and the repair map of these."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..model.decoder import Decoder
from ..model.memory import BatchLimit
from ..model.replay import Replay, Replayed, cut_lengths
from ..model.summing import Parts, Places
from .ablation import AblatedRows
from .ablation_batch import AblationBatch, Rows, cut
from .batches import Recorded, stored
from .drawing import DrawnTokens
from .repair_map import RepairMap


class TokenBatch(AblationBatch):
    """A batch of prompts whose clean pass is recorded, and what is drawn of it for each ablation.

    drawn: with prompts counted from 0 in this batch. maps: what the repair map of each ablation is added
    to, once all pieces before are added: the order of the sums does not depend on threads.
    """

    def __init__(
        self,
        model: Decoder,
        recorded: Recorded,
        mean_z: Tensor | None,
        limit: BatchLimit,
        *,
        drawn: Mapping[str, DrawnTokens],
        maps: Mapping[str, RepairMap],
    ) -> None:
        super().__init__(model, recorded, mean_z, limit)
        self.drawn, self.maps = drawn, maps
        device, dtype = model.device, self.clean.direct_effect.dtype
        self.out = {
            ablation: torch.full(
                (len(self.quantities), len(tokens)), torch.nan, dtype=dtype, device=device
            )
            for ablation, tokens in drawn.items()
        }
        self.top = {ablation: tokens.top.to(device) for ablation, tokens in drawn.items()}
        # Of each piece not yet added to a map: heads, changes and counts of its rows, and its error.
        self._waiting: dict[int, list[tuple[Tensor, Tensor, Tensor, float]]] = {}
        self._finished: dict[int, Rows] = {}
        self._next = 0

    def pieces(self) -> list[Rows]:
        """Rows of every (head, prompt) with a drawn token, cut after the last; layer by layer, longest first."""
        found: list[Rows] = []
        for ablation, drawn in self.drawn.items():
            for layer in drawn.layer.unique().tolist():
                here = (drawn.layer == layer).nonzero()[:, 0]
                found += self._pieces_of_layer(ablation, layer, here, first=len(found))
        return found

    def _pieces_of_layer(
        self, ablation: str, layer: int, here: Int[Tensor, " place"], *, first: int
    ) -> list[Rows]:
        """Pieces of a layer, numbered from `first`; here: the numbers of its drawn tokens."""
        drawn, device = self.drawn[ablation], self.model.device
        positions = self.clean.scale.shape[1]
        pairs = torch.stack([drawn.head[here], drawn.prompt[here]], dim=1)
        rows, row = pairs.unique(dim=0, return_inverse=True)
        ends = torch.zeros(len(rows), dtype=torch.long)
        ends.scatter_reduce_(0, row, drawn.position[here].long() + 1, "amax")
        lengths, order = cut_lengths(ends, positions).sort(descending=True, stable=True)
        row, by_row = order.argsort()[row].sort(stable=True)
        here, most, pieces = here[by_row], lengths.tolist(), []
        for number, some in enumerate(cut(most, self.limit.size), start=first):
            bounds = torch.searchsorted(row, torch.tensor([some.start, some.stop]))
            inside = slice(*bounds.tolist())
            head, prompt = rows[order[some.start : some.stop]].T.to(device)
            instance = here[inside]
            position = drawn.position[instance].to(device)
            places = Places((row[inside] - some.start).to(device), position)
            instance = instance.to(device)
            pieces.append(
                Rows(ablation, layer, head, prompt, most[some.start], places, instance, number)
            )
        return pieces

    def replayed(
        self, replay: Replay, rows: Rows, ablated: AblatedRows, directions: Tensor
    ) -> Replayed:
        """Also what the map consists of, where a token of the map is drawn."""
        assert rows.instance is not None
        mapped = rows.ablation in self.maps and bool(self.top[rows.ablation][rows.instance].any())

        def clean_z(layer: int) -> Tensor:
            return self.clean.recording.z[layer][rows.at]

        return ablated.replay(
            replay, directions, places=rows.places, clean_z=clean_z if mapped else None
        )

    def more_of(
        self, rows: Rows, replayed: Replayed, columns: dict[str, Tensor]
    ) -> tuple[Float[Tensor, "place component"], Float[Tensor, ""]] | None:
        """Every component's change of direct effect at each place, and how far off their sums are."""
        parts = replayed.parts
        return None if parts is None else self._changes(rows, parts, columns)

    def _changes(
        self, rows: Rows, parts: Parts, columns: dict[str, Tensor]
    ) -> tuple[Float[Tensor, "place component"], Float[Tensor, ""]]:
        scale = self.clean.scale[rows.at][:, None]
        first = self.first_mlp(rows.layer)
        mlps = parts.mlps.clone()
        for layer in range(first, self.model.n_layers):
            mlps[:, layer] -= self.clean_mlp[layer][rows.at]
        terms = {"from_heads": [parts.heads.flatten(1) / scale], "from_mlps": [mlps / scale]}
        if self.model.has_post_norms:
            norms = (parts.attention_norms, parts.mlp_norms)
            terms["from_post_norms"] = [norm / scale for norm in norms]
        error = torch.stack(
            [(torch.cat(own, 1).sum(1) - columns[term]).abs() for term, own in terms.items()]
        ).max()
        kept = [part for own in terms.values() for part in own]
        return torch.cat([*kept, columns["from_norm"][:, None]], dim=1), error

    def keep(
        self,
        rows: Rows,
        measured: Float[Tensor, "quantity place"],
        changed: Bool[Tensor, " row"],
        more: tuple[Float[Tensor, "changed_place component"], Float[Tensor, ""]] | None,
    ) -> None:
        assert rows.instance is not None
        assert rows.places is not None
        self.out[rows.ablation][:, rows.instance] = measured
        if rows.ablation not in self.maps:
            return
        top = self.top[rows.ablation][rows.instance].to("cpu", torch.float64)
        row, head = rows.places.row.cpu(), rows.head.cpu()
        counts = torch.zeros(len(head), dtype=torch.float64).index_add_(0, row, top)
        width = self.maps[rows.ablation].sums.shape[-1]
        changes = torch.zeros(len(head), width, dtype=torch.float64)
        error = 0.0
        if more is not None:
            inside = rows.measured_in(changed).cpu()
            values = more[0].to("cpu", torch.float64) * top[inside, None]
            changes.index_add_(0, row[inside], values)
            error = float(more[1])
        self._waiting.setdefault(rows.piece, []).append((head, changes, counts, error))

    def piece_done(self, piece: Rows) -> None:
        """Add to the maps what has no unfinished piece before it."""
        self._finished[piece.piece] = piece
        while self._next in self._finished:
            done = self._finished.pop(self._next)
            for head, changes, counts, error in self._waiting.pop(self._next, []):
                found = self.maps[done.ablation]
                found.add(done.layer, head, changes, counts)
                found.map_error = worst(found.map_error, error)
            self._next += 1

    def columns(self, ablation: str) -> dict[str, Float[Tensor, " instance"]]:
        """What was measured at the drawn tokens, in their order, and what the clean pass has there."""
        drawn, device = self.drawn[ablation], self.model.device
        prompt, position = drawn.prompt.to(device), drawn.position.to(device)
        effect = self.clean.direct_effect[
            prompt, position, drawn.layer.to(device), drawn.head.to(device)
        ]
        measured = dict(zip(self.quantities, self.out[ablation], strict=True))
        measured |= {"direct_effect": effect, "scale": self.clean.scale[prompt, position]}
        if "from_post_norms" not in measured:
            measured["from_post_norms"] = torch.zeros_like(measured["from_norm"])
        return {name: stored(values) for name, values in measured.items()}


def worst(*errors: float) -> float:
    """The largest error; NaN if any is."""
    return float(torch.tensor(errors, dtype=torch.float64).max())
