"""What the paper claims, what is measured for each claim, and the rule that decides it. No torch.

"Paper" is Rushing & Nanda, "Explorations of Self-Repair in Language Models" (ICML 2024). A rule is the
range of values in which the claim holds, the same for every model. Supported: the whole 95 % interval
lies in it. Not supported: none of it does. Undecided: it crosses a limit, or nothing was measured.
Claims over the models of a study (CLAIMS_OVER_MODELS) have one value of all models together; their rules
were written before more than one model was measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..formats import Unit
from ..vocabulary import LAST_BUT_ONE, SECOND_HALF

SUPPORTED, NOT_SUPPORTED, UNDECIDED = "supported", "not supported", "undecided"


@dataclass(frozen=True)
class Depth:
    """A column of the table by depth: resample ablation, top tokens, mean over a group's heads."""

    column: str
    group: str = SECOND_HALF


@dataclass(frozen=True)
class Summary:
    """A row of the summaries of an experiment, over all heads that it looked at."""

    experiment: str
    quantity: str
    group: str | None = None  # None: of the last MLP that was measured


@dataclass(frozen=True)
class Smallest:
    """The smallest of the models' values of a column of the table by depth."""

    column: str
    group: str = SECOND_HALF


@dataclass(frozen=True)
class SlopeOnSize:
    """Slope of the models' values of a column on the decimal logarithm of their numbers of parameters."""

    column: str
    group: str = SECOND_HALF


@dataclass(frozen=True)
class PooledShare:
    """A share of the direct effect as a ratio of means over the heads of all models."""

    column: str
    group: str = SECOND_HALF


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What the paper says and where, what is measured for it, and the range in which it holds.

    above, below: limits of that range (None: open). unit: "logits", "share" or "ratio". why: where the
    limits come from.
    """

    id: str
    claim: str
    source: str
    measured: str
    unit: Unit
    figure: str
    why: str
    above: float | None = None
    below: float | None = None

    def rule(self) -> str:
        """The rule in words."""
        low, high = (_limit(limit, self.unit) for limit in (self.above, self.below))
        if self.above is not None and self.below is not None:
            where = f"between {low} and {high}"
        else:
            where = f"above {low}" if self.above is not None else f"below {high}"
        return f"{where} ({self.why})"

    def verdict(self, low: float, high: float) -> str:
        """Of a 95 % interval; one that is not finite, such as NaN where nothing is measured, is undecided."""
        above = -math.inf if self.above is None else self.above
        below = math.inf if self.below is None else self.below
        if not (math.isfinite(low) and math.isfinite(high)):
            return UNDECIDED
        if above < low and high < below:
            return SUPPORTED
        return NOT_SUPPORTED if high <= above or low >= below else UNDECIDED


@dataclass(frozen=True, kw_only=True)
class Claim(Rule):
    """A claim about each model.

    clipped: what the paper reports instead, a mean of per-token shares of the direct effect clipped to
    0..1.
    """

    value: Depth | Summary
    clipped: Depth | None = None


@dataclass(frozen=True, kw_only=True)
class ClaimOverModels(Rule):
    """A claim about all models of a study together, without its controls.

    needs: models without which nothing is said. chance: the largest share of the orders of the models that
    may agree with their sizes as well as theirs does, if the claim is to be supported (None: any).
    """

    value: Smallest | SlopeOnSize | PooledShare
    needs: int = 2
    chance: float | None = None

    def rule(self) -> str:
        if self.chance is None:
            return super().rule()
        return (
            f"{super().rule()}; supported only if the models' rank correlation with size is one that at most"
            f" {100 * self.chance:g} % of their orders reach"
        )

    def judged(self, low: float, high: float, *, chance: float | None = None) -> str:
        """The verdict of a 95 % interval and of the share of orders that agree as well."""
        verdict = self.verdict(low, high)
        too_likely = self.chance is not None and (chance is None or chance > self.chance)
        return UNDECIDED if verdict == SUPPORTED and too_likely else verdict


def _limit(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    if unit == "share":
        return f"{100 * value:g} %"
    return f"{value:g}{' logits' if unit == 'logits' else ''}"


CLAIMS = (
    Claim(
        id="later_layers_repair",
        claim="Later layers repair: heads in later layers of every model are made up for",
        source="abstract, Figure 1",
        measured="self-repair, mean over the heads of the second half",
        unit="logits",
        value=Depth("self_repair"),
        figure="E1",
        above=0.0,
        why="no repair is 0",
    ),
    Claim(
        id="repair_is_imperfect",
        claim="Repair is imperfect: the head's effect is not fully restored",
        source="abstract",
        measured="restored share of the removed effect, second half",
        unit="share",
        value=Depth("restored_share"),
        figure="E2",
        below=1.0,
        why="full repair is 100 %",
        clipped=Depth("self_repair_share_clipped"),
    ),
    Claim(
        id="repair_is_noisy",
        claim="Repair is noisy: it varies much from token to token",
        source="abstract",
        measured="standard deviation of a head's self-repair over its top tokens, as a multiple of "
        "its mean, second half",
        unit="ratio",
        value=Depth("self_repair_noise"),
        figure="E3",
        above=0.5,
        why="half of the mean",
    ),
    Claim(
        id="repair_overcorrects",
        claim="Sometimes it over-corrects: the logit rises beyond its clean value",
        source="abstract",
        measured="share of top tokens whose logit rises, second half",
        unit="share",
        value=Depth("over_corrected_share"),
        figure="E3",
        above=0.01,
        why="more than one token in a hundred",
    ),
    Claim(
        id="norm_restores_second_half",
        claim="The final norm restores on the order of 30 % of the direct effect",
        source="first version of the abstract: up to 30 %, read here as on the order of 30 %; on top tokens,"
        " by depth",
        measured="part from the norm's scale as a share of the direct effect, second half",
        unit="share",
        value=Depth("from_norm_share"),
        figure="E5",
        above=0.15,
        below=0.6,
        why="within a factor of two of 30 %",
        clipped=Depth("from_norm_share_clipped"),
    ),
    Claim(
        id="norm_restores_last_but_one",
        claim="So it does in the last layer but one",
        source="as above",
        measured="the same share in the last layer but one",
        unit="share",
        value=Depth("from_norm_share", LAST_BUT_ONE),
        figure="E5",
        above=0.15,
        below=0.6,
        why="within a factor of two of 30 %",
        clipped=Depth("from_norm_share_clipped", LAST_BUT_ONE),
    ),
    Claim(
        id="few_neurons_repair",
        claim="Few neurons carry the MLP's part",
        source="abstract: sparse sets of neurons",
        measured="share of the positive changes of the last MLP's neurons that comes from the top "
        "1 % of them on each token, chosen heads",
        unit="share",
        value=Summary("E8", "top_percent_share"),
        figure="E8",
        above=0.5,
        why="most of it",
    ),
    Claim(
        id="neurons_are_anti_erasure",
        claim="They are mostly anti-erasure neurons",
        source="abstract",
        measured="share of instances whose most repairing neuron lowers the logit before and does "
        "so less after ablation, chosen heads",
        unit="share",
        value=Summary("E9", "anti_erasure_share"),
        figure="E9",
        above=0.5,
        why="most of them",
    ),
    Claim(
        id="neurons_differ",
        claim="They differ between prompts",
        source="the part on sparse neurons",
        measured="share of the ten most repairing neurons that two instances of different prompts "
        "have in common, chosen heads",
        unit="share",
        value=Summary("E10", "overlap"),
        figure="E10",
        below=0.5,
        why="fewer than half in common",
    ),
    Claim(
        id="heads_repress_themselves",
        claim="Heads repress themselves: they write less of what is already there",
        source="discussion, iterative inference",
        measured="share of heads of the second half whose direct effect falls when their own output "
        "is added to their input",
        unit="share",
        value=Summary("E11", "repressing_share", "own x1"),
        figure="E11a",
        above=0.5,
        why="most heads",
    ),
    Claim(
        id="own_output_represses_most",
        claim="and not just because something was added",
        source="discussion, iterative inference",
        measured="slope of new on old direct effect with the own output added, less that with a "
        "random direction of equal norm, mean over these heads",
        unit="ratio",
        value=Summary("E11", "slope_difference", "own - random x1"),
        figure="E11a",
        below=0.0,
        why="no difference is 0",
    ),
    Claim(
        id="refeeding_is_like_ablation",
        claim="Ablating a head and re-feeding the earlier residual stream change later heads alike",
        source="discussion, iterative inference",
        measured="correlation of the two changes over the ablated heads' top tokens and the heads of "
        "the next layer",
        unit="ratio",
        value=Summary("E11", "change_correlation", "top"),
        figure="E11b",
        above=0.5,
        why="a strong correlation",
    ),
    Claim(
        id="backups_are_true",
        claim="Backup heads are true ones: with the backup gone as well, the first head's loss comes back",
        source="a question of ours: the paper measures what later heads do more, not what that is worth",
        measured="change of the logit when a head and its backup are ablated together, less those when each is"
        " ablated alone; the strongest backup pairs of the repair map less pairs with another head of the same"
        " layer, mean over pairs",
        unit="logits",
        value=Summary("E16", "excess_difference", "backup - control"),
        figure="E16",
        below=0.0,
        why="no difference is 0",
    ),
    Claim(
        id="repair_is_no_artefact",
        claim="Self-repair is no artefact of inputs that the model never sees: it stays under the ablation that"
        " does the least harm",
        source="a question of ours; optimal ablation is Li & Janson's (2024)",
        measured="restored share of the removed effect under the optimal constant, over that under resample"
        " ablation, chosen heads",
        unit="ratio",
        value=Summary("E17", "restored_ratio", "optimal / resample"),
        figure="E17",
        above=0.5,
        why="at least half of it",
    ),
    Claim(
        id="any_change_is_made_up_for",
        claim="but it answers any change: token by token later parts undo most of a random one's direct effect",
        source="a question of ours",
        measured="slope of self-repair on the lost direct effect over tokens, under a change of a head's output in a"
        " random direction, as large as by resampling; mean over chosen heads",
        unit="ratio",
        value=Summary("E17", "compensation", "random"),
        figure="E17",
        above=0.5,
        why="most of it; this rule was written when Gemma 3 270M had been seen, and no other model",
    ),
    Claim(
        id="repair_is_of_the_head",
        claim="What a head says is made up for more than such a change without meaning",
        source="a question of ours",
        measured="the same slope under resample ablation, less that under the random change",
        unit="ratio",
        value=Summary("E17", "compensation_difference", "resample - random"),
        figure="E17",
        above=0.0,
        why="no difference is 0; compared in this way, and not by mean self-repair, when three models had been seen",
    ),
    Claim(
        id="narrow_repair_is_that_of_text",
        claim="The heads that are repaired on a narrow task are those that are repaired on ordinary text",
        source="a question of ours: backup heads were first found on one task, indirect object identification",
        measured="Spearman's rank correlation, over the heads of the second half, of self-repair where prompts of"
        " that task predict their answer with self-repair on each head's top tokens of text; of a model that does"
        " the task",
        unit="ratio",
        value=Summary("E18", "self_repair_correlation", "second half, task done"),
        figure="E18",
        above=0.5,
        why="a strong correlation",
    ),
)

CLAIMS_OVER_MODELS = (
    ClaimOverModels(
        id="every_model_repairs",
        claim="Self-repair exists in models of every family and size",
        source="abstract: a variety of model families and sizes",
        measured="self-repair, mean over the heads of the second half, in the model where it is smallest;"
        " the ends of its interval are the smallest of all models'",
        unit="logits",
        value=Smallest("self_repair"),
        figure="E1",
        above=0.0,
        why="no repair is 0",
    ),
    ClaimOverModels(
        id="repair_grows_with_size",
        claim="Self-repair grows with the size of the model",
        source="a question of ours: the abstract says that it exists in models of various sizes, not that"
        " it grows",
        measured="restored share of the removed effect, second half: slope over models, in points of a share"
        " for ten times the parameters (least squares); E15 shows the share of the direct effect",
        unit="share",
        value=SlopeOnSize("restored_share"),
        figure="E15",
        above=0.0,
        why="no growth is 0",
        needs=3,
        chance=0.05,
    ),
    ClaimOverModels(
        id="norm_restores_over_models",
        claim="The final norm restores on the order of 30 % of the direct effect in the last layer but one",
        source="first version of the abstract: up to 30 %; the second gives no number. In the authors' code a"
        " ratio of means over heads and models",
        measured="part from the norm's scale as a share of the direct effect, last layer but one: ratio of"
        " means over the heads of all models",
        unit="share",
        value=PooledShare("from_norm_share", LAST_BUT_ONE),
        figure="E5",
        above=0.15,
        below=0.6,
        why="within a factor of two of 30 %",
    ),
)
