"""Each word that files, tables, figures and code share, once, and what it means (docs/method.md).

No torch and no altair, so that rules, tables, claims and figures can all import it.
"""

from __future__ import annotations

Head = tuple[int, int]  # (layer, head), counted from 0

# Which tokens a mean is over: each head's top tokens, or all. Method section 4.
TOP, ALL = "top", "all"
SELECTIONS = (TOP, ALL)
# What a sweep says of its tokens if it measures drawn ones and not all: `sweep.tokens` of the config.
SAMPLED = "sampled"
# Top tokens: the share of all positions with the largest clean direct effect of the head.
TOP_SHARE = 0.02

# What a sweep measures of each head and token, in logits; docs/method.md sections 1 to 3.
EFFECTS = (
    "direct_effect",
    "ablated_direct_effect",
    "delta_logit",
    "self_repair",
    "from_heads",
    "from_mlps",
    "from_post_norms",
    "from_norm",
)
# The terms that self-repair is the sum of; from_post_norms is exactly 0 in a model that normalises no
# sublayer's output.
TERMS = ("from_heads", "from_mlps", "from_post_norms", "from_norm")
# What has a share of the direct effect in the tables.
SHARED_EFFECTS = ("self_repair", *TERMS)
# What is kept of every token of a chosen head (E3).
TOKEN_EFFECTS = ("direct_effect", "ablated_direct_effect", "delta_logit", "self_repair")

# The parts of a model whose direct effect may change when a head is ablated, as the repair map names them:
# later heads, MLPs, the post-norms after attention and after MLPs (none in most models), the final norm.
HEAD, MLP, ATTENTION_NORM, MLP_NORM, FINAL_NORM = (
    "head",
    "mlp",
    "attention norm",
    "mlp norm",
    "final norm",
)
# In tables of the map: all later heads whose entries are small, as one.
OTHER_HEADS = "other heads"
# Smallest size, in logits, of a head's entry that has a row of its own, and of a backup head's entry.
SMALLEST_REPAIR = 0.02

# What a number's 95 % interval is called: <column>_low, <column>_high.
BOUNDS = ("low", "high")

# Groups of layers that tables and claims average over.
QUARTERS = ("first quarter", "second quarter", "third quarter", "last quarter")
SECOND_HALF, LAST_BUT_ONE = "second half", "last layer but one"

# Regions of a token by the share of the direct effect that is made up for (E3).
TOKEN_REGIONS = ("breakage", "under-repair", "repair", "over-correction")
# Regions of a neuron on a token by its direct effect before and after the ablation (E9).
NEURON_REGIONS = ("erases more", "erases less", "erasure reversed", "adds more or less")
# Why the neurons of a model may not be measured (E7 to E10).
NO_NEURONS = (
    "the MLPs of this model have no single output projection to read neurons from, as in a mixture of"
    " experts"
)
# What is added to a layer's input (E11a): the head's own output, or one of two controls.
FED_BACK = ("own", "random", "other")

# The columns of every table of single numbers with an interval, <experiment>_summaries.parquet.
SUMMARY_COLUMNS = (
    *("model", "experiment", "quantity", "layer", "head", "group"),
    *("value", "low", "high", "n_prompts", "n_tokens"),
)


def bounded(name: str) -> tuple[str, str, str]:
    """A column with the columns of its interval: name, name_low, name_high."""
    low, high = BOUNDS
    return name, f"{name}_{low}", f"{name}_{high}"


def components(n_layers: int, n_heads: int, *, post_norms: bool) -> list[tuple[str, int, int]]:
    """The components of a repair map in order: (kind, layer, head); -1 where it has no layer or head.

    Every head of every layer, every MLP, every post-norm if the model has any (of attention, then of
    MLPs), the final norm.
    """
    layers = range(n_layers)
    found = [(HEAD, layer, head) for layer in layers for head in range(n_heads)]
    for kind in (MLP, *((ATTENTION_NORM, MLP_NORM) if post_norms else ())):
        found += [(kind, layer, -1) for layer in layers]
    return [*found, (FINAL_NORM, -1, -1)]


def second_half(n_layers: int) -> range:
    """The layers of the second half; of an odd number, the middle one belongs to it."""
    return range(n_layers // 2, n_layers)


def depth_groups(n_layers: int) -> dict[str, list[int]]:
    """The layers of each group: the quarters, of sizes that differ by one at most (a model of fewer
    than four layers has fewer quarters), the second half, and the last layer but one."""
    quarters: dict[str, list[int]] = {}
    for layer in range(n_layers):
        quarters.setdefault(QUARTERS[layer * len(QUARTERS) // n_layers], []).append(layer)
    groups = quarters | {SECOND_HALF: list(second_half(n_layers))}
    return groups | ({LAST_BUT_ONE: [n_layers - 2]} if n_layers > 1 else {})
