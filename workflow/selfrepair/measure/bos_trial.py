"""Whether a model does better with a beginning-of-sequence token (BOS) in front of its prompts.

Getting it wrong measures a broken model (docs/method.md section 1), so the clean pass tries the first
prompts both ways.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..model.decoder import Decoder
from ..model.direct_effect import target_logits
from ..model.replay import Replay

# The first prompts of the sample are tried. The other way is clearly better if it is so by more than
# this many nats a token, on at least so many prompts, and by more than three standard errors of the
# mean over prompts.
PROMPTS, NATS, STANDARD_ERRORS = 8, 0.1, 3.0


@dataclass(frozen=True)
class BosTrial:
    """Mean loss of the same tokens of text with and without BOS in front, nats a token.

    had_bos: whether the study's prompts have it; standard_error: of the difference, over prompts.
    """

    had_bos: bool
    prompts: int
    with_bos: float
    without_bos: float
    standard_error: float

    @property
    def better_the_other_way(self) -> bool:
        """Whether the study's prompts are clearly not as the model wants them."""
        gain = self.with_bos - self.without_bos
        if not self.had_bos:
            gain = -gain
        certain = gain > STANDARD_ERRORS * self.standard_error
        return self.prompts >= PROMPTS and gain > NATS and certain

    def warning(self, model: str) -> str:
        """One line that says what is better and how to get it; model: its key in the config."""
        now, remedy = ("with", "never") if self.had_bos else ("without", "always")
        return (
            f"models.{model}: measured {now} a beginning-of-sequence token, but it does better the other "
            f"way: a loss of {self.with_bos:.2f} nats a token with it, {self.without_bos:.2f} without "
            f"({self.prompts} prompts); consider text.bos: {remedy}"
        )


@torch.no_grad()
def bos_trial(
    decoder: Decoder, tokens: Int[Tensor, "prompt length"], *, had_bos: bool, bos_token: int
) -> BosTrial | None:
    """The loss on the first prompts both ways, on the targets that both have; None without any.

    Args:
        tokens: the prompts of the sample; had_bos: whether their first token is BOS.
        bos_token: what is put in front of prompts that have none.
    """
    some = tokens[:PROMPTS]
    # Neither way is longer than the prompts are, so that both fit the model.
    text = some[:, 1:] if had_bos else some[:, :-1]
    if text.shape[1] < 2:
        return None
    first = some[:, :1] if had_bos else torch.full_like(some[:, :1], bos_token)
    replay = Replay(decoder)
    with_bos = _losses(replay, torch.cat([first, text], 1))[:, 1:].mean(1)
    without_bos = _losses(replay, text).mean(1)
    spread = (with_bos - without_bos).std() if len(some) > 1 else torch.tensor(torch.nan)
    return BosTrial(
        had_bos=had_bos,
        prompts=len(some),
        with_bos=float(with_bos.mean()),
        without_bos=float(without_bos.mean()),
        standard_error=float(spread / len(some) ** 0.5),
    )


def _losses(
    replay: Replay, tokens: Int[Tensor, "prompt length"]
) -> Float[Tensor, "prompt position"]:
    """Loss of every token but the first, nats; a prompt at a time, which takes the least memory."""
    found = []
    for row in tokens.to(replay.decoder.device).split(1):
        residual = replay.record(row[:, :-1]).residual[-1]
        found.append(target_logits(replay.decoder, residual, row[:, 1:])[1])
    return torch.cat(found).double().cpu()
