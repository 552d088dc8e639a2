"""How much a study measures: tokens drawn and replayed, and how many bytes are kept of them.

Expected numbers, from the config alone. Imports no torch, so that a plan can be made in an instant.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..model.sizes import ARRAYS, LENGTH_STEP, Shape
from ..vocabulary import SAMPLED, TOP_SHARE
from .heads import swept_heads

# Bytes of a candidate or a top token: its index and its direct effect.
RANKED_BYTES = 8
# Bytes of an instance beside its effects: prompt, position, layer and head, what it was drawn from.
PLACE_BYTES = 4 * 4 + 2
# Of all tokens: 18 sums in float64 of each prompt and head, and 4 histograms of 511 bins in int32 of each
# job and head; of top tokens and of all of them (measure/prompt_sums.py).
SUMS_BYTES, HISTOGRAM_BYTES = 2 * 18 * 8, 2 * 4 * 511 * 4
# Positions of a prompt of the narrow task, in most tokenizers (text/ioi.py).
NARROW_POSITIONS = 17
# Sums of each entry of a map, in float64: of s, of s^2, and of s times the number of tokens.
MAP_SUMS = 3


def positions_of(config: Mapping[str, Any]) -> int:
    """Positions of a prompt that have a target: all but the last."""
    return int(config["text"]["tokens_per_prompt"]) - 1


def is_sampled(config: Mapping[str, Any]) -> bool:
    """Whether sweeps measure drawn tokens, not all."""
    return bool(config["sweep"]["tokens"] == SAMPLED)


def drawn(config: Mapping[str, Any], ablation: str) -> int:
    """Tokens of each head that a sweep of drawn tokens measures."""
    asked, positions = config["ablations"][ablation], positions_of(config)
    top = capped(None, asked["prompts"], positions)
    of_prompts = math.ceil(top * share_of_prompts(config, ablation))
    wanted = asked["tokens_per_head"]
    top = of_prompts if wanted is None else min(wanted, of_prompts)
    return top + min(asked["prompts"] * positions, asked["random_tokens_per_head"])


def share_of_prompts(config: Mapping[str, Any], ablation: str) -> float:
    """Of the prompts that are expected to hold a top token of a head, the share that is drawn of each head."""
    asked = config["ablations"][ablation]
    if asked["prompts_per_head"] is None:
        return 1.0
    top = capped(None, asked["prompts"], positions_of(config))
    return min(1.0, asked["prompts_per_head"] / rows(top, asked["prompts"]))


def capped(tokens: int | None, prompts: int, positions: int) -> int:
    """So many top tokens of a head, or all that are to be expected in these prompts (None: all of them)."""
    expected = math.ceil(TOP_SHARE * prompts * positions)
    return expected if tokens is None else min(tokens, expected)


def rows(tokens: int, prompts: int) -> float:
    """Expected prompts with at least one of so many tokens, each in any of the prompts alike.

    Fewer than both. Real top tokens crowd together in prompts, which makes it fewer still.
    """
    return prompts * -math.expm1(tokens * math.log1p(-1 / prompts)) if prompts > 1 else 1.0


def replayed(tokens: int, prompts: int, positions: int) -> float:
    """Expected positions that a head is replayed on: of each prompt with a token, up to its last token, in
    steps of LENGTH_STEP.

    Tokens lie at any position of any prompt alike. A step is replayed if any token lies in it or later: each
    does with probability (positions from the step's first on) / (prompts x positions).
    """
    found = 0.0
    for first in range(0, positions, LENGTH_STEP):
        length, later = min(LENGTH_STEP, positions - first), positions - first
        found += length * (1 - (1 - later / (prompts * positions)) ** tokens)
    return prompts * found


def replayed_of_sweep(config: Mapping[str, Any], ablation: str) -> float:
    """Expected positions that a sweep replays for each head, over all of its prompts."""
    prompts, positions = config["ablations"][ablation]["prompts"], positions_of(config)
    if not is_sampled(config):
        return float(prompts * positions)
    alone = replayed(drawn(config, ablation), prompts, positions)
    share = share_of_prompts(config, ablation)
    if share == 1:
        return alone
    # Whole prompts are drawn: of those with a top token, each alike, replayed up to its last one.
    of_top = share * replayed(capped(None, prompts, positions), prompts, positions)
    random = config["ablations"][ablation]["random_tokens_per_head"]
    return min(alone, of_top + replayed(random, prompts, positions))


def swept(shape: Shape, config: Mapping[str, Any]) -> int:
    """Heads of a model that sweeps ablate."""
    return len(swept_heads(config["sweep"]["heads"], shape.layers, shape.heads))


def recorded(shape: Shape, config: Mapping[str, Any], ablation: str) -> float:
    """Expected prompts of a sweep that any of its heads has a token in: others are not even recorded."""
    prompts: int = config["ablations"][ablation]["prompts"]
    if not is_sampled(config):
        return float(prompts)
    asked, of_head = config["ablations"][ablation], drawn(config, ablation)
    if asked["prompts_per_head"] is not None:
        of_head = min(of_head, asked["prompts_per_head"] + asked["random_tokens_per_head"])
    return rows(swept(shape, config) * of_head, prompts)


def map_bytes(shape: Shape) -> float:
    """A map of who repairs, as it is summed up and stored."""
    heads = shape.layers * shape.heads
    components = heads + shape.layers + 1
    return 8.0 * MAP_SUMS * heads * components


def clean_shard_bytes(shape: Shape, config: Mapping[str, Any], prompts: int) -> float:
    """The candidates for top tokens that a clean pass over so many prompts keeps."""
    tokens = prompts * positions_of(config)
    share: float = config["clean"]["candidate_share"]
    return RANKED_BYTES * share * tokens * shape.layers * shape.heads


def ranked_bytes(shape: Shape, config: Mapping[str, Any]) -> float:
    """Every head's top tokens of the sample."""
    tokens = config["text"]["prompts"] * positions_of(config)
    return RANKED_BYTES * TOP_SHARE * tokens * shape.layers * shape.heads


def sweep_bytes(shape: Shape, config: Mapping[str, Any], ablation: str, prompts: int) -> float:
    """What a job of a sweep keeps of so many prompts, its map left out."""
    heads, total = swept(shape, config), config["ablations"][ablation]["prompts"]
    if not is_sampled(config):
        return float(heads * (SUMS_BYTES * prompts + HISTOGRAM_BYTES))
    # Direct effects and clean scales stay in float32.
    size = 2 if config["sweep"]["store"] == "float16" else 4
    instance = (ARRAYS - 1) * size + 2 * 4 + PLACE_BYTES
    return instance * heads * drawn(config, ablation) * prompts / total
