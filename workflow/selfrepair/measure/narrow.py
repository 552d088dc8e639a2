"""Every head ablated on the prompts of a narrow task, where they predict the answer (docs/method.md section 5)."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..errors import InputError
from ..model.decoder import Decoder
from ..model.replay import Replay
from ..model.sizes import prompts_at_once
from .batches import Progress
from .drawing import DrawnTokens
from .token_sweep import TokenSweep, sweep_tokens

# Of each head and prompt, in logits: what a table needs. The change of the logit follows from the first three
# by the definition of self-repair (docs/method.md section 2).
MEASURED = (
    *("direct_effect", "ablated_direct_effect", "self_repair"),
    *("from_heads", "from_mlps", "from_post_norms", "from_norm"),
)
# Decimals of a stored entry of the map, logits: an entry counts from SMALLEST_REPAIR, 0.02, on, and rounded ones
# take a third of the room.
DECIMALS = 3


@dataclass
class NarrowTask:
    """A task's prompts, clean and with each head ablated, at the position that predicts the answer; on the CPU.

    answer_logit, subject_logit: [prompt], clean, centred, before any cap; most_likely: whether no token's is
    higher than the answer's. MEASURED: [prompt, layer, head], logits, as in `token_sweep.TokenSweep`.
    changes: mean over prompts of the change of each head's direct effect, logits, [layer, head] of the ablated
    one, then [layer, head] of the other; n_prompts: how many they are means over.
    """

    answer_logit: Float[Tensor, " prompt"]
    subject_logit: Float[Tensor, " prompt"]
    most_likely: Bool[Tensor, " prompt"]
    direct_effect: Float[Tensor, "prompt layer head"]
    ablated_direct_effect: Float[Tensor, "prompt layer head"]
    self_repair: Float[Tensor, "prompt layer head"]
    from_heads: Float[Tensor, "prompt layer head"]
    from_mlps: Float[Tensor, "prompt layer head"]
    from_post_norms: Float[Tensor, "prompt layer head"]
    from_norm: Float[Tensor, "prompt layer head"]
    changes: Float[Tensor, "layer head layer head"]
    has_post_norms: bool = False
    conservation_error: float = 0.0
    decomposition_error: float = 0.0
    map_error: float = 0.0

    @property
    def n_prompts(self) -> int:
        return len(self.answer_logit)

    def arrays(self) -> dict[str, Tensor]:
        """The tensors to store by name: from_post_norms only of a model that has post-norms; `map.sums`, the
        changes summed over prompts after rounding them to DECIMALS, and `map.prompts`, [1], of how many."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        arrays = {n: v for n, v in found.items() if torch.is_tensor(v) and n != "changes"}
        if not self.has_post_norms:
            del arrays["from_post_norms"]
        sums = self.changes.double().round(decimals=DECIMALS) * self.n_prompts
        return arrays | {"map.sums": sums.float(), "map.prompts": torch.tensor([self.n_prompts])}


@torch.no_grad()
def narrow_task(
    model: Decoder,
    tokens: Int[Tensor, "prompt length"],
    *,
    donors: Int[Tensor, "prompt length"],
    subject: Int[Tensor, " prompt"],
    batch: int | None = None,
    chunk: int | None = None,
    progress: Progress | None = None,
) -> NarrowTask:
    """Resample-ablate every head in every prompt, and measure it where the answer is predicted.

    Args:
        tokens: prompts whose last token is their answer; without any, nothing is run.
        donors: each prompt's partner, of the same length, whose activations are put in place.
        subject: the token that would be the wrong answer.
        batch, chunk, progress: as for `sweep_tokens`.
    Raises:
        InputError, ExactnessError: as `sweep_tokens`.
    """
    if not len(tokens):
        return no_narrow_task(model)
    if len(subject) != len(tokens):
        raise InputError(f"narrow task: {len(tokens)} prompts, but {len(subject)} subjects")
    sweep = sweep_tokens(
        model,
        tokens,
        every_head(model, prompts=len(tokens), position=tokens.shape[1] - 2),
        donors=donors,
        mapped=True,
        batch=batch,
        chunk=chunk,
        progress=progress,
    )
    answer, others, highest = _logits(model, tokens, subject, batch)
    shape = len(tokens), model.n_layers, model.n_heads
    effects: dict[str, Any] = {name: getattr(sweep, name).view(shape) for name in MEASURED}
    return NarrowTask(
        answer_logit=answer,
        subject_logit=others,
        most_likely=answer >= highest,
        **effects,
        changes=_changes(model, sweep),
        has_post_norms=sweep.has_post_norms,
        conservation_error=sweep.conservation_error,
        decomposition_error=sweep.decomposition_error,
        map_error=sweep.repair_map.map_error if sweep.repair_map else 0.0,
    )


def no_narrow_task(model: Decoder) -> NarrowTask:
    """The task without a prompt."""
    heads = model.n_layers, model.n_heads
    effects: dict[str, Any] = {name: torch.zeros(0, *heads) for name in MEASURED}
    return NarrowTask(
        answer_logit=torch.zeros(0),
        subject_logit=torch.zeros(0),
        most_likely=torch.zeros(0, dtype=torch.bool),
        **effects,
        changes=torch.zeros(*heads, *heads),
        has_post_norms=model.has_post_norms,
    )


def every_head(model: Decoder, *, prompts: int, position: int) -> DrawnTokens:
    """Every head on one position of every prompt, as tokens of the map."""
    shape = (prompts, model.n_layers, model.n_heads)
    prompt, layer, head = (torch.from_numpy(at).reshape(-1) for at in np.indices(shape))
    every = torch.ones(len(prompt), dtype=torch.bool)
    return DrawnTokens(
        prompt, torch.full_like(prompt, position), layer, head, top=every, random=~every
    )


def _changes(model: Decoder, sweep: TokenSweep) -> Float[Tensor, "layer head layer head"]:
    """The map's entries of heads: the first components of it, means over prompts."""
    assert sweep.repair_map is not None
    heads = model.n_layers, model.n_heads
    sums = sweep.repair_map.sums[..., : heads[0] * heads[1]]
    means = sums / sweep.repair_map.tokens[..., None]
    return means.to(sweep.self_repair.dtype).view(*heads, *heads)


def _logits(
    model: Decoder, tokens: Tensor, subject: Tensor, batch: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits where the answer is predicted: of the answer, of the subject, the highest of all; per prompt."""
    replay, found = Replay(model), []
    size = batch or prompts_at_once(model.device.type)
    for rows, other in zip(tokens.split(size), subject.split(size), strict=True):
        rows = rows.to(model.device)
        residual = replay.record(rows[:, :-1]).residual[-1][:, -1]
        logits = model.to_logits(residual)
        wanted = torch.stack([rows[:, -1], other.to(model.device)], 1)
        values = torch.cat([logits.gather(1, wanted), logits.amax(1, keepdim=True)], 1)
        found.append(values.to(torch.promote_types(values.dtype, torch.float32)).cpu())
    answer, other, highest = torch.cat(found).T
    return answer, other, highest
