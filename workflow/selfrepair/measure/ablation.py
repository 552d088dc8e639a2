"""Ablations at work: the z that replaces a head's, and the prompts in which it does, ready to replay.

What each ablation puts in place of z stands in `selfrepair.ablations`. A baseline never depends on
batches: resample partners are a derangement of the whole sample (`text.partners`), means are over the
whole sample (docs/method.md section 2).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..ablations import ABLATIONS, DONORS, MEANS, Baselines
from ..errors import InputError
from ..model.decoder import Decoder
from ..model.replay import Recording, Replay, Replayed
from ..model.summing import Places, Scales


def replacement(
    decoder: Decoder,
    layer: int,
    ablation: str,
    *,
    z: Float[Tensor, "prompt position head d_head"],
    donor_z: Float[Tensor, "prompt position head d_head"] | None,
    mean_z: Float[Tensor, "layer head d_head"] | None,
) -> Float[Tensor, "#prompt #position head d_head"]:
    """The z' that an ablation puts in place of a layer's z; donor_z and mean_z where it needs them."""
    bias = decoder.layers[layer].value_bias
    given = Baselines(
        z=z,
        value_bias=bias,
        donor_z=donor_z,
        mean_z=None if mean_z is None else mean_z[layer].to(bias),
    )
    return ABLATIONS[ablation].replacement(given)


def any_needs(ablations: Collection[str], what: str) -> bool:
    """Whether one of these ablations needs DONORS or MEANS."""
    return any(what in ABLATIONS[name].needs for name in ablations)


@dataclass
class AblatedRows:
    """Recorded prompts in which a head's output is changed, ready to be replayed.

    change: what the ablation adds to the layer's raw attention output; residual: the layer's clean
    input; unchanged_out: the changed output of a parallel layer, whose MLP does not see the change,
    else None; all [row, position, d_model]. scales: the clean scales of post-norms in these rows.
    """

    layer: int
    change: Float[Tensor, "row position d_model"]
    residual: Float[Tensor, "row position d_model"]
    attention_out: Float[Tensor, "row position d_model"]
    unchanged_out: Float[Tensor, "row position d_model"] | None
    scales: Scales

    def replay(
        self,
        replay: Replay,
        directions: Float[Tensor, "*place d_model"],
        *,
        places: Places | None = None,
        clean_z: Callable[[int], Tensor] | None = None,
    ) -> Replayed:
        """Everything after the change; directions: u of each row; places, clean_z: as `from_layer`."""
        return replay.from_layer(
            self.layer,
            residual=self.residual,
            attention_out=self.attention_out,
            unchanged_out=self.unchanged_out,
            directions=directions,
            scales=self.scales,
            places=places,
            clean_z=clean_z,
        )

    def layer_output(self, replay: Replay) -> Float[Tensor, "row position d_model"]:
        """The input of the next layer."""
        return replay.layer_output(
            self.layer,
            residual=self.residual,
            attention_out=self.attention_out,
            unchanged_out=self.unchanged_out,
        )


def ablated_rows(
    decoder: Decoder,
    recording: Recording,
    layer: int,
    *,
    head: Int[Tensor, " row"],
    prompt: Int[Tensor, " row"],
    delta_z: Float[Tensor, "row position d_head"],
) -> AblatedRows:
    """Rows of recorded prompts in which a head's z changes by delta_z (each row its own head).

    They end where delta_z ends: a position never sees later ones.
    """
    ablated, length = decoder.layers[layer], delta_z.shape[1]
    change = torch.bmm(delta_z, ablated.w_o[head])
    before = recording.attention_out[layer][prompt, :length]
    unchanged_out = None
    if ablated.parallel:
        after = recording.residual[layer + 1][prompt, :length]
        unchanged_out = after + ablated.attention_write.change(before, change)
    return AblatedRows(
        layer=layer,
        change=change,
        residual=recording.residual[layer][prompt, :length],
        attention_out=before + change,
        unchanged_out=unchanged_out,
        scales=recording.scales(prompt, length),
    )


def check_ablations(
    ablations: Collection[str],
    tokens: Tensor,
    donors: Tensor | None,
    mean_z: Tensor | None,
    decoder: Decoder,
) -> None:
    """Refuse unknown ablations, and baselines that are missing, misshapen or not used (InputError)."""
    for name in ablations:
        if name not in ABLATIONS:
            raise InputError(f"ablation: {name!r} is not one of {', '.join(ABLATIONS)}")
    asked = " and ".join(ablations)
    if (donors is not None) != any_needs(ablations, DONORS):
        need = "takes no donors" if donors is not None else "needs donors"
        raise InputError(f"ablation: {asked} {need}: tokens of the same shape")
    if donors is not None and donors.shape != tokens.shape:
        raise InputError(
            f"donors: shape {list(donors.shape)} differs from tokens {list(tokens.shape)}"
        )
    if mean_z is not None and not any_needs(ablations, MEANS):
        raise InputError(f"mean_z: {asked} ablation takes no means")
    shape = (decoder.n_layers, decoder.n_heads, decoder.d_head)
    if mean_z is not None and tuple(mean_z.shape) != shape:
        raise InputError(f"mean_z: shape {list(mean_z.shape)}; this model has {list(shape)}")
