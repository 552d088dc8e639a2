"""Ablations that are measured on chosen heads alone, beside those of the sweeps (docs/method.md section 2).

They need more than a clean run: a constant that was trained, or a direction drawn at random. No torch.
"""

from __future__ import annotations

from collections.abc import Sequence

from .ablations import ABLATIONS
from .errors import InputError
from .vocabulary import Head

# The constant that does the least harm, in place of z (Li & Janson 2024, arXiv 2409.09951).
OPTIMAL = "optimal"
# z, changed in a random direction as much as resampling changes it: a control, which takes no meaning out.
RANDOM = "random"

# Those that remove what a head says, in the order in which figures and texts show them.
REMOVING = (*ABLATIONS, OPTIMAL)
COMPARED = (*REMOVING, RANDOM)
TITLES = {name: ablation.title for name, ablation in ABLATIONS.items()} | {
    OPTIMAL: "optimal ablation",
    RANDOM: "random direction of the same size",
}
# Which heads: `experiments.optimal_heads` of the config, beside a list.
CHOSEN_HEADS, ALL_HEADS = "chosen", "all"
# Prompts to train on, at least: a quarter of them says when to stop.
LEAST_PROMPTS = 8


def training_prompts(total: int, *, count: int, kept_free: int) -> tuple[range, range]:
    """The prompts of a sample that constants are trained on, and those, a quarter, that say when to stop.

    They are the last `count` before the last `kept_free` ones, which pairs of heads are ablated on: nothing
    else is ablated there if the study's config is right (`check_training_prompts`).
    """
    end = total - kept_free
    held_out = count // 4
    return range(end - count, end - held_out), range(end - held_out, end)


def check_training_prompts(
    count: int, *, total: int, ablated: int, kept_free: int, name: str
) -> None:
    """InputError if prompts to train on are too few, or overlap those that heads are ablated on.

    ablated: how many first prompts of the sample; kept_free: how many last ones. name: of the key.
    """
    if count == 0:
        return
    if count < LEAST_PROMPTS:
        raise InputError(
            f"{name}: {count}; take at least {LEAST_PROMPTS}, or 0 to train no constants"
        )
    left = max(0, total - ablated - kept_free)
    if count > left:
        raise InputError(
            f"{name}: {count}; of {total} prompts heads are ablated on the first {ablated} and the last "
            f"{kept_free}, which leaves {left} to train on: take more text, or 0 to train no constants"
        )


def heads_to_train(
    asked: str | Sequence[Sequence[int]],
    chosen: Sequence[Sequence[int]],
    shape: Sequence[int],
    *,
    prompts: int,
) -> list[Head]:
    """The heads whose constants are trained: the chosen ones, all of the model, or those that are named;
    none without prompts to train on. shape: layers and heads per layer."""
    if prompts == 0:
        return []
    if asked == ALL_HEADS:
        return [(layer, head) for layer in range(shape[0]) for head in range(shape[1])]
    named = chosen if isinstance(asked, str) else asked
    return [(int(layer), int(head)) for layer, head in named]
