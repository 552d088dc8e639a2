"""Two heads ablated together: is a later head a true backup of an earlier one? (docs/method.md section 5, E16)

If the later head makes up for the earlier one, ablating both takes more off the target's logit than the two
ablations do one at a time: what the later head made up for is gone. Heads are resample ablated; changes of
the logit are exact, each from a replay of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..ablations import RESAMPLE
from ..errors import InputError
from ..model.decoder import Decoder
from ..model.products import dot
from ..model.replay import Replay, cut_lengths
from ..model.summing import Places
from ..vocabulary import Head
from .ablation import AblatedRows, ablated_rows, check_ablations
from .batches import (
    CleanBatch,
    Progress,
    Recorded,
    checked_sizes,
    for_each_batch,
    stored,
    tensors_of,
)
from .drawing import draw_tokens
from .selection import check_heads

# (earlier head, later head).
Pair = tuple[Head, Head]
# What is measured of each instance, in logits: fields of CoAblation.
MEASURED = ("direct_effect", "delta_first", "delta_second", "delta_both", "second_change")


@dataclass
class CoAblation:
    """Pairs of heads ablated, a row per instance (a pair on one of its first head's tokens); in logits.

    pair, prompt, position: the index into the pairs, the prompt (row of tokens) and position.
    direct_effect: clean, of the first head. delta_first, delta_second, delta_both: change of the target's
    centred logit when the first head, the second, both are ablated. second_change: change of the second
    head's direct effect (at clean scales) when the first is ablated, the pair's entry in the repair map.
    """

    pair: Int[Tensor, " instance"]
    prompt: Int[Tensor, " instance"]
    position: Int[Tensor, " instance"]
    direct_effect: Float[Tensor, " instance"]
    delta_first: Float[Tensor, " instance"]
    delta_second: Float[Tensor, " instance"]
    delta_both: Float[Tensor, " instance"]
    second_change: Float[Tensor, " instance"]
    conservation_error: float

    def arrays(self) -> dict[str, Tensor]:
        """The tensors by name."""
        return tensors_of(self)


@torch.no_grad()
def co_ablation(
    model: Decoder,
    tokens: Int[Tensor, "prompt length"],
    *,
    donors: Int[Tensor, "prompt length"],
    pairs: Sequence[Pair],
    selected: Bool[Tensor, "prompt position pair"],
    batch: int | None = None,
    chunk: int | None = None,
    progress: Progress | None = None,
) -> CoAblation:
    """Resample-ablate the heads of each pair one at a time and together, on chosen tokens.

    Args:
        tokens, donors, batch, chunk, progress: as for `sweep`.
        pairs: of an earlier head and one in a later layer; without any, nothing is run.
        selected: the tokens of each pair, usually top tokens of its first head. Of each pair are replayed
            the prompts with such a token, up to the last one.
    Raises:
        InputError: tokens or donors that do not fit the model, or a pair that is none.
    """
    check_ablations([RESAMPLE.name], tokens, donors, None, model)
    known = check_pairs(pairs, model)
    if not known:
        return CoAblation(**no_co_ablation(), conservation_error=0.0)
    batch, rows = checked_sizes(model, tokens, donors=donors, batch=batch, chunk=chunk)
    replay, found = Replay(model), [no_co_ablation()]

    def measure(recorded: Recorded, report: Progress) -> None:
        pairs_here = _PairBatch(model, replay, recorded.clean, recorded.donor_z, recorded.first)
        wanted = recorded.of(selected)
        for index, pair in enumerate(known):
            for prompt, mask in pieces(wanted[..., index], rows * (tokens.shape[1] - 1)):
                found.append(pairs_here.measure(index, pair, prompt, mask))
            report(1 / len(known))

    worst = for_each_batch(replay, tokens, measure, donors=donors, batch=batch, progress=progress)
    columns = {name: torch.cat([each[name] for each in found]) for name in found[0]}
    return CoAblation(**columns, conservation_error=worst)


def no_co_ablation() -> dict[str, Tensor]:
    """The columns without an instance."""
    keys = {name: torch.zeros(0, dtype=torch.int64) for name in ("pair", "prompt", "position")}
    return keys | {name: torch.zeros(0) for name in MEASURED}


def draw_pair_tokens(
    top_token: Int[Tensor, "layer head top"],
    pairs: Sequence[Pair],
    *,
    positions: int,
    prompts: range,
    tokens_per_pair: int | None,
    seed: int,
) -> Bool[Tensor, "prompt position pair"]:
    """Which tokens each pair is ablated on: drawn from its first head's top tokens in consecutive prompts.

    Args:
        top_token, positions: as for `draw_tokens`; prompts: of the sample, the rows of the result.
        tokens_per_pair: drawn, or all where there are fewer; None: all. Pairs with one first head share them.
    """
    if not pairs:
        return torch.zeros(len(prompts), positions, 0, dtype=torch.bool)
    # Tokens before these prompts are put beyond the last one, where nothing is drawn.
    shifted = top_token - prompts.start * positions
    shifted = torch.where(shifted < 0, len(prompts) * positions, shifted)
    firsts = [first for first, _ in pairs]
    drawn = draw_tokens(
        shifted,
        positions=positions,
        prompts=len(prompts),
        tokens_per_head=tokens_per_pair,
        random_tokens_per_head=0,
        first_position=0,
        seed=seed,
        heads=sorted(set(firsts)),
    )
    return drawn.mask(firsts, prompts=len(prompts), positions=positions)


def check_pairs(pairs: Sequence[Pair], model: Decoder) -> list[Pair]:
    """Pairs of heads of the model, the second in a later layer (InputError)."""
    known = []
    for pair in pairs:
        first, second = check_heads(pair, model.n_layers, model.n_heads, name="pairs")
        if second[0] <= first[0]:
            raise InputError(
                f"pairs: head {list(second)} is not in a later layer than {list(first)}, so it cannot back"
                " it up; name the earlier head first"
            )
        known.append((first, second))
    return known


def pieces(
    selected: Bool[Tensor, "prompt position"], most_tokens: int
) -> Iterator[tuple[Int[Tensor, " row"], Bool[Tensor, "row position"]]]:
    """Prompts to replay together, and their selected tokens, cut after the last of them; longest first.

    most_tokens: replayed at once.
    """
    positions = selected.shape[1]
    ends = (selected * torch.arange(1, positions + 1)).amax(1)
    lengths = cut_lengths(ends, positions)
    prompts = lengths.argsort(descending=True, stable=True)[: int((lengths > 0).sum())]
    while len(prompts):
        length = int(lengths[prompts[0]])
        count = max(1, most_tokens // length)
        some, prompts = prompts[:count], prompts[count:]
        yield some, selected[some, :length]


@dataclass
class _Rows:
    """Recorded prompts that are replayed together, the places that are looked at, and u and S there."""

    prompt: Int[Tensor, " row"]
    length: int
    places: Places
    u: Float[Tensor, "place d_model"]
    scale: Float[Tensor, " place"]

    @property
    def at(self) -> tuple[Tensor, Tensor]:
        """The places in [prompt, position, …] of the batch."""
        return self.prompt[self.places.row], self.places.position


@dataclass
class _PairBatch:
    """One batch of prompts, recorded, in which pairs of heads are ablated."""

    model: Decoder
    replay: Replay
    clean: CleanBatch
    donor_z: list[Tensor]
    first_prompt: int

    def measure(
        self, index: int, pair: Pair, prompt: Tensor, wanted: Bool[Tensor, "row position"]
    ) -> dict[str, Tensor]:
        """A pair on some prompts, at the positions of `wanted`."""
        rows = self._rows(prompt, wanted)
        first, second = pair
        self.replay.learn_arguments_of(rows.length)  # runs layers, which must not be changed
        seen: list[Tensor] = []
        with self._at_z(rows, second, lambda z: seen.append(rows.places.of(z))):
            delta_first = self._delta_logit(rows, first)
        with self._at_z(rows, second, lambda z: z.copy_(self._donor(rows, second))):
            delta_both = self._delta_logit(rows, first)
        place = rows.at
        measured = {
            "direct_effect": self.clean.direct_effect[(*place, *first)],
            "delta_first": delta_first,
            "delta_second": self._delta_logit(rows, second),
            "delta_both": delta_both,
            "second_change": self._change_of(rows, second, seen[0]),
        }
        return {
            "pair": torch.full((len(place[0]),), index),
            "prompt": place[0].cpu() + self.first_prompt,
            "position": place[1].cpu(),
            **{name: stored(values) for name, values in measured.items()},
        }

    def _rows(self, prompt: Tensor, wanted: Bool[Tensor, "row position"]) -> _Rows:
        device, length = self.model.device, wanted.shape[1]
        prompt = prompt.to(device)
        places = Places(*wanted.nonzero().to(device).T)
        at = prompt[places.row], places.position
        u, scale = self.clean.targets.directions[at], self.clean.scale[at]
        return _Rows(prompt, length, places, u, scale)

    def _donor(self, rows: _Rows, head: Head) -> Float[Tensor, "row position d_head"]:
        """z that takes the place of a head's, from the prompts' partners."""
        return self.donor_z[head[0]][rows.prompt, : rows.length, head[1]]

    def _delta_logit(self, rows: _Rows, head: Head) -> Float[Tensor, " place"]:
        """Change of the target's logit when a head is ablated, and whatever hooks do besides."""
        replayed = self._ablated(rows, head).replay(self.replay, rows.u, places=rows.places)
        after = dot(replayed.residual, rows.u) / self.model.final_norm.scale(replayed.residual)
        before = dot(self.clean.recording.residual[-1][rows.at], rows.u) / rows.scale
        return after - before

    def _ablated(self, rows: _Rows, head: Head) -> AblatedRows:
        layer, which = head
        z = self.clean.recording.z[layer][rows.prompt, : rows.length, which]
        return ablated_rows(
            self.model,
            self.clean.recording,
            layer,
            head=torch.full_like(rows.prompt, which),
            prompt=rows.prompt,
            delta_z=self._donor(rows, head) - z,
        )

    def _change_of(
        self, rows: _Rows, head: Head, z: Float[Tensor, "place d_head"]
    ) -> Float[Tensor, " place"]:
        """Change of a head's direct effect when its z becomes another, at clean scales."""
        layer, which = head
        written = self.model.layers[layer]
        scales = self.clean.recording.attention_scale[layer]
        before = self.clean.recording.z[layer][(*rows.at, which)]
        change = (z - before) @ written.w_o[which]
        scale = None if scales is None else scales[rows.at]
        return written.attention_write.projection(change, rows.u, scale) / rows.scale

    @contextmanager
    def _at_z(self, rows: _Rows, head: Head, act: Callable[[Tensor], Any]) -> Iterator[None]:
        """Give a head's z in replays of the rows, [row, position, d_head], to a function that may change it."""
        layer, which = head
        shape = len(rows.prompt), rows.length, self.model.n_heads, self.model.d_head

        def hook(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            z = args[0].clone()
            act(z.view(shape)[:, :, which])
            return (z, *args[1:])

        handle = self.model.layers[layer].output_projection.register_forward_pre_hook(hook)
        try:
            yield
        finally:
            handle.remove()
