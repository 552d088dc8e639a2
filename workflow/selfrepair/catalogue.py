"""Every experiment and figure of a study, once: rules, stages, the claims page and tests read it here.

No torch and no altair. To add a figure: its module with `draw` and `caption`, a line in FIGURES, its test.
To add an experiment: what measures it and what tabulates it, a line in EXPERIMENTS, two rules, its test.
See docs/architecture.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Experiment:
    """A measurement besides the sweeps. It is scattered over shards, gathered, and tabulated.

    name: of its folder under results/<study>/<model>/experiments/. prompts: the key under `experiments`
    in the config that says how many prompts it runs on. measure, tabulate: the rules that run the model
    and that write the tables. tables: <table>.parquet in results/<study>/<model>/; summaries: the one of
    them that holds its numbers with an interval. own_prompts: its prompts are not of the study's sample.
    """

    name: str
    prompts: str
    measure: str
    tabulate: str
    tables: tuple[str, ...]
    summaries: str
    own_prompts: bool = False


@dataclass(frozen=True)
class Figure:
    """A figure, drawn from tables alone.

    key: what texts call it; name: of its files, <key>-<name>.<format>; module: in selfrepair.figures,
    with draw(*tables) and caption(*tables); tables: <table>.parquet in results/<study>/<model>/, in the
    order in which both take them. scope: "model" for one figure per model, "study" for one of all models.
    """

    key: str
    name: str
    module: str
    tables: tuple[str, ...]
    scope: Literal["model", "study"] = "model"


EXPERIMENTS = (
    Experiment(
        name="chosen",
        prompts="prompts",
        measure="ablate_chosen",
        tabulate="tabulate_tokens",
        tables=("tokens", "scale_ratios", "token_summaries"),
        summaries="token_summaries",
    ),
    Experiment(
        name="neurons",
        prompts="prompts",
        measure="measure_neurons",
        tabulate="tabulate_neurons",
        tables=("neuron_ranks", "neuron_curve", "top_neurons", "neuron_counts", "neuron_summaries"),
        summaries="neuron_summaries",
    ),
    Experiment(
        name="iterative",
        prompts="iterative_prompts",
        measure="measure_iterative",
        tabulate="tabulate_iterative",
        tables=("self_repression", "refeeding", "iterative_summaries"),
        summaries="iterative_summaries",
    ),
    Experiment(
        name="pairs",
        prompts="pair_prompts",
        measure="ablate_pairs",
        tabulate="tabulate_pairs",
        tables=("co_ablation", "co_ablation_summaries"),
        summaries="co_ablation_summaries",
    ),
    Experiment(
        name="compared",
        prompts="prompts",
        measure="compare_ablations",
        tabulate="tabulate_compared",
        tables=("compared_ablations", "compared_summaries"),
        summaries="compared_summaries",
    ),
    Experiment(
        name="narrow",
        prompts="narrow_prompts",
        measure="ablate_narrow",
        tabulate="tabulate_narrow",
        tables=("narrow_heads", "narrow_summaries"),
        summaries="narrow_summaries",
        own_prompts=True,
    ),
)

FIGURES = (
    Figure("E1", "self-repair-by-depth", "e01_self_repair_by_depth", ("heads",), "study"),
    Figure(
        "E2",
        "effect-against-change",
        "e02_effect_against_change",
        ("heads", "compared_ablations"),
    ),
    Figure(
        "E3",
        "effect-against-change-by-token",
        "e03_effect_against_change_by_token",
        ("tokens", "token_summaries"),
    ),
    Figure("E4", "norm-scale-ratio", "e04_norm_scale_ratio", ("scale_ratios", "token_summaries")),
    Figure("E5", "norm-share-by-depth", "e05_norm_share_by_depth", ("heads",), "study"),
    Figure("E6", "breakdown-by-head", "e06_breakdown_by_head", ("heads",)),
    Figure("E7", "most-repairing-neurons", "e07_most_repairing_neurons", ("neuron_ranks",)),
    Figure("E8", "cumulative-change-of-neurons", "e08_cumulative_change", ("neuron_curve",)),
    Figure(
        "E9",
        "effect-of-the-top-neuron",
        "e09_effect_of_the_top_neuron",
        ("top_neurons", "neuron_summaries"),
    ),
    Figure("E10", "neurons-among-the-top-10", "e10_neurons_among_the_top_10", ("neuron_counts",)),
    Figure("E11a", "self-repression", "e11a_self_repression", ("self_repression",)),
    Figure(
        "E11b",
        "refeeding-against-ablation",
        "e11b_refeeding_against_ablation",
        ("refeeding", "iterative_summaries"),
    ),
    Figure("E12", "breakdown-across-models", "e12_breakdown_across_models", ("depth",), "study"),
    Figure("E13", "repair-map", "e13_repair_map", ("repair_layers",)),
    Figure("E14", "backup-heads", "e14_backup_heads", ("backup_heads",)),
    Figure(
        "E15", "self-repair-across-models", "e15_self_repair_across_models", ("depth",), "study"
    ),
    Figure("E16", "co-ablation", "e16_co_ablation", ("co_ablation", "co_ablation_summaries")),
    Figure(
        "E17",
        "every-ablation",
        "e17_every_ablation",
        ("compared_ablations", "compared_summaries"),
    ),
    Figure(
        "E18",
        "narrow-against-full",
        "e18_narrow_against_full",
        ("narrow_heads", "narrow_summaries"),
    ),
    Figure("E19", "emergence", "e19_emergence", ("depth", "training"), "study"),
)
# Drawn for the models whose heads are compared with the numbers that the authors released.
PUBLISHED = Figure("published", "against-measured", "published", ("published",))
