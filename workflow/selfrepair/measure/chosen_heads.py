"""What the experiments on single heads keep of sweeps of drawn tokens (E3, E4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ..ablations import ABLATIONS, RESAMPLE
from ..vocabulary import TOKEN_EFFECTS, Head
from .drawing import DrawnTokens
from .token_sweep import TokenSweep


def tokens_by_ablation(
    drawn: DrawnTokens, heads: Sequence[Head], last_layer_heads: Sequence[Head]
) -> dict[str, DrawnTokens]:
    """Which instances each ablation is measured on: by resampling all that were drawn of `heads` (E3),
    and by every ablation the top tokens of last_layer_heads (E4); drawn: of all of these heads."""
    of_last = _is_of(drawn, last_layer_heads) & drawn.top
    last, every = drawn.where(of_last), drawn.where(of_last | _is_of(drawn, heads))
    return {name: every if name == RESAMPLE.name else last for name in ABLATIONS}


def chosen_arrays(
    results: Mapping[str, TokenSweep],
    tokens: Mapping[str, DrawnTokens],
    heads: Sequence[Head],
    last_layer_heads: Sequence[Head],
    *,
    first_prompt: int = 0,
) -> dict[str, Tensor]:
    """What is kept of the sweeps of `tokens` (from `tokens_by_ablation`), a value per instance.

    `tokens.*`: TOKEN_EFFECTS of `heads` under resample ablation, and whether the token was drawn from
    the head's top tokens (`top`) and from all tokens (`random`). `last.direct_effect` and
    `last.ratio.<ablation>`: clean direct effect and S / S' of last_layer_heads on their top tokens;
    S / S' is above 1 if the final norm magnifies what the ablation leaves. `prompt`, `position` and
    `head` of both: the head by its place in its list, the prompt counted from first_prompt.
    """
    drawn, resample = tokens[RESAMPLE.name], results[RESAMPLE.name]
    everywhere = torch.ones_like(drawn.top)
    row, place = _rows_of(drawn, heads, everywhere)
    arrays = _keys(drawn, row, place, first_prompt)
    arrays |= {name: getattr(drawn, name)[row].to(torch.uint8) for name in ("top", "random")}
    arrays |= {name: getattr(resample, name)[row] for name in TOKEN_EFFECTS}
    row, place = _rows_of(drawn, last_layer_heads, drawn.top)
    last = _keys(drawn, row, place, first_prompt) | {"direct_effect": resample.direct_effect[row]}
    for ablation, result in results.items():
        row, _ = _rows_of(tokens[ablation], last_layer_heads, tokens[ablation].top)
        last[f"ratio.{ablation}"] = result.scale[row] / result.ablated_scale[row]
    named = {"tokens": arrays, "last": last}
    return {f"{part}.{name}": v for part, values in named.items() for name, v in values.items()}


def _is_of(tokens: DrawnTokens, heads: Sequence[Head]) -> Bool[Tensor, " instance"]:
    found = torch.zeros(len(tokens), dtype=torch.bool)
    for layer, head in heads:
        found |= (tokens.layer == layer) & (tokens.head == head)
    return found


def _rows_of(
    tokens: DrawnTokens, heads: Sequence[Head], wanted: Bool[Tensor, " instance"]
) -> tuple[Int[Tensor, " row"], Int[Tensor, " row"]]:
    """The wanted instances of some heads, head by head, and the place of their head in the list."""
    found = [(_is_of(tokens, [head]) & wanted).nonzero()[:, 0] for head in heads]
    places = [torch.full_like(rows, place) for place, rows in enumerate(found)]
    return torch.cat(found), torch.cat(places)


def _keys(
    tokens: DrawnTokens, row: Int[Tensor, " row"], place: Int[Tensor, " row"], first_prompt: int
) -> dict[str, Tensor]:
    keys = {"prompt": tokens.prompt[row] + first_prompt, "position": tokens.position[row]}
    return {name: v.to(torch.int32) for name, v in (keys | {"head": place}).items()}
