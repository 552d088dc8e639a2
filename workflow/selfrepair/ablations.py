"""The ablations: what each puts in place of a head's output z (docs/method.md section 2).

To add one, add an `Ablation` to ABLATIONS; the sweep, the config, the rules, the figures and the slow
reference take it from there. No torch: a replacement only indexes and combines what it is given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# What an ablation may need beyond the clean run: z of each prompt's resample partner, or the mean of z
# over all positions and prompts of the whole sample.
DONORS, MEANS = "donors", "means"


@dataclass(frozen=True)
class Baselines:
    """What a replacement is made from, for one layer; tensors of the model's dtype.

    z: [prompt, position, head, d_head], of the clean run; donor_z: the same of the resample partners,
    None unless the ablation needs DONORS; mean_z: [head, d_head], None unless it needs MEANS;
    value_bias: [head, d_head], the constant part of z (value bias and what the preceding norm's bias
    adds through W_V), which zero ablation keeps.
    """

    z: Any
    value_bias: Any
    donor_z: Any = None
    mean_z: Any = None


@dataclass(frozen=True)
class Ablation:
    """One way to remove a head: its name in configs, files and tables, and what it puts in place of z.

    title: how figures and texts call it. replacement: from the `Baselines` of a layer to z', which must
    broadcast to [prompt, position, head, d_head]. needs: DONORS, MEANS, both or neither.
    """

    name: str
    title: str
    replacement: Callable[[Baselines], Any]
    needs: frozenset[str] = frozenset()


def _resample(given: Baselines) -> Any:
    """Another prompt's z at the same position: what a head does when it sees something else."""
    return given.donor_z


def _mean(given: Baselines) -> Any:
    """The mean over the sample: what a head says whatever it sees."""
    return given.mean_z[None, None]


def _zero(given: Baselines) -> Any:
    """Nothing, in the folded convention: the constant value bias stays, which is no part of z there."""
    return given.value_bias[None, None]


RESAMPLE = Ablation("resample", "resample ablation", _resample, frozenset({DONORS}))
MEAN = Ablation("mean", "mean ablation", _mean, frozenset({MEANS}))
ZERO = Ablation("zero", "zero ablation", _zero)

# By name, in the order in which figures and texts show them; the first is the paper's.
ABLATIONS: dict[str, Ablation] = {ablation.name: ablation for ablation in (RESAMPLE, MEAN, ZERO)}
