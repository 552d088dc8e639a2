"""Tables of the narrow task (E18): self-repair of every head there, against the same heads on the study's text.

Who is repaired: Spearman's rank correlation over heads of a quantity on the task and on text. Who repairs: how many
of the strongest backup heads are the same. An interval is a bootstrap over the task's prompts: it covers that other
prompts of these templates might have been drawn, not other templates, other tasks or other text. Resamples repeat
prompts, which adds noise to each head's mean and moves all rank correlations away from their value, mostly towards 0:
they are shifted back, so that their mean is the value (`centred`).

A model **does the task** if the whole interval of its accuracy, the share of prompts in which the answer's logit is
above the other name's, is above CHANCE. Of one that does not, everything is reported and nothing is judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int

from ..ablations import RESAMPLE
from ..vocabulary import (
    ALL,
    BOUNDS,
    EFFECTS,
    HEAD,
    SECOND_HALF,
    SMALLEST_REPAIR,
    TOP,
    bounded,
    second_half,
)
from .bootstrap import divide, interval, mean_over_heads, prompt_weights
from .summaries import summary, summary_table
from .terms import POST_NORMS

# Accuracy of a model that prefers neither name.
CHANCE = 0.5
# Backup heads that are compared: those that take over most.
TOP_BACKUPS = 10
# Of a stored change, `measure.narrow.DECIMALS`.
DECIMALS = 3
ALL_HEADS = "all heads"
# Heads of the second half whose mean direct effect on the task is positive, as it is on top tokens of text: of a
# head with a negative one, what makes up for it is negative self-repair.
POSITIVE = f"{SECOND_HALF}, positive effect"
# The group of the correlation that is judged, of a model that does the task.
JUDGED = f"{SECOND_HALF}, task done"
# What is set beside the study's text.
COMPARED = ("self_repair", "direct_effect")
TOKENS = {TOP: "top tokens", ALL: "all tokens"}

TABLE_SCHEMA: dict[str, Any] = (
    {"model": pl.String}
    | dict.fromkeys(("layer", "head"), pl.Int32)
    | dict.fromkeys([column for name in EFFECTS for column in bounded(name)], pl.Float32)
    | dict.fromkeys([c for name in COMPARED for c in bounded(f"full_{name}")], pl.Float32)
    | dict.fromkeys(("takes_over", "full_takes_over"), pl.Float32)
    | dict.fromkeys(("n_tokens", "n_prompts"), pl.Int32)
)

Rows = list[dict[str, Any]]
OfHeads = Float[np.ndarray, "layer head"]


def narrow_tables(
    shards: Sequence[Mapping[str, Any]],
    *,
    heads: pl.DataFrame,
    repair_map: pl.DataFrame,
    model: str,
    seed: int,
    resamples: int,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """E18: each head's means on the task beside those on text, and what the two have in common.

    Args:
        shards: the arrays of `measure.narrow.NarrowTask`, numpy's; heads, repair_map: the model's tables of its
            sweeps. Where these have no resample ablation or no map, there is nothing to compare.
    Returns:
        a row per head, columns as TABLE_SCHEMA; summaries: `accuracy`, `most_likely`, `logit_difference` of the
        task; `self_repair` and `direct_effect`, means over heads; their `_correlation` with those on text, and
        `_split_half` between halves of the task's prompts; `backup_overlap`. Both without a row if there are no
        prompts.
    """
    rows = _joined(shards)
    n_prompts = len(rows["answer_logit"]) if rows else 0
    if not n_prompts:
        return no_narrow_tables()
    weights = prompt_weights(n_prompts, resamples, seed=seed)
    task = _Task(rows, _changes(shards), heads, repair_map, model, weights)
    return task.table(), summary_table(task.summaries())


def no_narrow_tables() -> tuple[pl.DataFrame, pl.DataFrame]:
    """The tables without a row: of a study without the task, or of a model whose tokenizer has no names for it."""
    return pl.DataFrame(schema=TABLE_SCHEMA), summary_table([])


def _joined(shards: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """What is stored per prompt, of all shards, in float64; and what follows from it."""
    if not shards:
        return {}
    names = [name for name in shards[0] if not name.startswith("map.")]
    rows = {name: np.concatenate([s[name] for s in shards]).astype(float) for name in names}
    rows.setdefault(POST_NORMS, np.zeros_like(rows["self_repair"]))
    # By the definition of self-repair (docs/method.md section 2).
    change = rows["ablated_direct_effect"] - rows["direct_effect"]
    return rows | {"delta_logit": rows["self_repair"] + change}


def _changes(shards: Sequence[Mapping[str, Any]]) -> Float[np.ndarray, "layer head layer head"]:
    """The map of heads: mean change of each later head's direct effect, per ablated head; logits."""
    sums = np.sum([shard["map.sums"].astype(float) for shard in shards], axis=0)
    prompts = float(sum(shard["map.prompts"].sum() for shard in shards))
    return np.asarray(sums / prompts)


def taking_over(changes: Float[np.ndarray, "layer head layer head"]) -> OfHeads:
    """What each head takes over in all: the sum of its changes over all ablated heads of earlier layers, those
    of at least SMALLEST_REPAIR logits, as in `repair_map.parquet`."""
    changes = changes.round(DECIMALS)  # as they were before shards were summed in float32
    n_layers = len(changes)
    later = np.arange(n_layers)[:, None] < np.arange(n_layers)
    counted = later[:, None, :, None] & (changes >= SMALLEST_REPAIR)
    return np.asarray(np.where(counted, changes, 0.0).sum((0, 1)))


def taking_over_on_text(repair_map: pl.DataFrame, n_layers: int, n_heads: int) -> OfHeads:
    """The same of the map of the study's text, of entries that are told from none (their interval is above 0):
    of entries of a few tokens each, noise alone is often large enough. NaN where there is no map."""
    entries = repair_map.filter(ablation=RESAMPLE.name)
    if entries.is_empty():
        return np.full((n_layers, n_heads), np.nan)
    found = np.zeros((n_layers, n_heads))
    large = entries.filter(pl.col("mean") >= SMALLEST_REPAIR, pl.col("low") > 0, kind=HEAD)
    at = large["component_layer"].to_numpy(), large["component_head"].to_numpy()
    np.add.at(found, at, large["mean"].to_numpy())
    return found


def rank_correlations(
    x: Float[np.ndarray, "resample head"], y: Float[np.ndarray, "resample head"]
) -> Float[np.ndarray, " resample"]:
    """Spearman's of each resample, over heads; NaN where a value is missing. Of equal values the first ranks
    lower."""
    ranks = [each.argsort(1, kind="stable").argsort(1).astype(float) for each in (x, y)]
    a, b = (rank - rank.mean(1, keepdims=True) for rank in ranks)
    found = divide((a * b).sum(1), np.sqrt((a**2).sum(1) * (b**2).sum(1)))
    return np.where(np.isnan(x).any(1) | np.isnan(y).any(1), np.nan, found)


def centred(estimates: Float[np.ndarray, " resample"]) -> Float[np.ndarray, " resample"]:
    """Correlations of resamples shifted so that their mean is the value, the first, on Fisher's scale."""
    value, resamples = estimates[0], estimates[1:]
    if np.isnan(value) or abs(value) == 1 or np.isnan(resamples).all():
        return estimates
    z = np.arctanh(np.clip(resamples, -1 + 1e-9, 1 - 1e-9))
    return np.concatenate([[value], np.tanh(z - np.nanmean(z) + np.arctanh(value))])


def does_task(accuracy: Float[np.ndarray, " resample"], *, n_prompts: int) -> bool:
    """Whether the whole interval of a model's accuracy is above CHANCE."""
    _, low, _ = interval(accuracy, prompts=n_prompts)
    return bool(low > CHANCE)


def overlap(first: OfHeads, second: OfHeads) -> tuple[float, dict[str, float], int]:
    """Share of the heads with the largest values that two measurements have in common; what is to be expected
    if the heads of one were drawn at random, from all heads that can back up another or from the heads of the
    layers that they are in; and of how many heads: TOP_BACKUPS, or fewer where fewer take over anything."""
    n_heads = first.shape[1]
    # No head is earlier than those of the first layer.
    able = np.arange(first.size) >= n_heads
    count = min(TOP_BACKUPS, *(int((able & (each.ravel() > 0)).sum()) for each in (first, second)))
    if not count:
        return np.nan, {}, 0
    sets = []
    for values in (first, second):
        order = np.argsort(-np.where(able, values.ravel(), -np.inf), kind="stable")
        sets.append(order[:count])
    common = len(np.intersect1d(sets[0], sets[1])) / count
    layers = [np.bincount(each // n_heads, minlength=len(first)) for each in sets]
    expected = {
        "any heads": count / int(able.sum()),
        "heads of the same layers": float((layers[0] * layers[1]).sum()) / n_heads / count,
    }
    return common, expected, count


class _Task:
    """One model's task, measured, and the tables of its text; bootstrap weights [resample, prompt]."""

    def __init__(
        self,
        rows: Mapping[str, np.ndarray],
        changes: Float[np.ndarray, "layer head layer head"],
        heads: pl.DataFrame,
        repair_map: pl.DataFrame,
        model: str,
        weights: Float[np.ndarray, "resample prompt"],
    ) -> None:
        self.rows, self.model, self.weights = rows, model, weights
        self.n_prompts, self.n_layers, self.n_heads = rows["self_repair"].shape
        self.heads = heads.filter(ablation=RESAMPLE.name)
        self.takes_over = taking_over(changes)
        self.full_takes_over = taking_over_on_text(repair_map, self.n_layers, self.n_heads)
        if self.left_out().any():  # what would be taken over from them is not known
            self.full_takes_over = np.full_like(self.full_takes_over, np.nan)

    def means(
        self, name: str, some: Bool[np.ndarray, " prompt"] | None = None
    ) -> Float[np.ndarray, "resample head"]:
        """Mean over (some of) the prompts; NaN where a resample drew none of them."""
        weights = self.weights if some is None else self.weights * some
        total = weights @ self.rows[name].reshape(self.n_prompts, -1)
        return divide(total, np.broadcast_to(weights.sum(1, keepdims=True), total.shape))

    def on_text(self, name: str, selection: str) -> Float[np.ndarray, " head"]:
        """A column of the table of heads, in order; NaN for a head without tokens there."""
        found = np.full((self.n_layers, self.n_heads), np.nan)
        rows = self.heads.filter(selection=selection)
        if not rows.is_empty():
            found[rows["layer"].to_numpy(), rows["head"].to_numpy()] = rows[name].to_numpy()
        return found.ravel()

    def left_out(self) -> Bool[np.ndarray, " head"]:
        """Heads that the sweeps of the study's text did not ablate."""
        found = np.zeros((self.n_layers, self.n_heads), dtype=bool)
        rows = self.heads.filter(pl.col("n_tokens").is_null())
        found[rows["layer"].to_numpy(), rows["head"].to_numpy()] = True
        return found.ravel()

    def table(self) -> pl.DataFrame:
        layer, head = np.indices((self.n_layers, self.n_heads)).reshape(2, -1)
        columns: dict[str, Any] = {"layer": layer, "head": head}
        for name in EFFECTS:
            ends = interval(self.means(name), prompts=self.n_prompts)
            columns |= dict(zip(bounded(name), ends, strict=True))
        for name in COMPARED:
            for column in bounded(name):
                columns[f"full_{column}"] = self.on_text(column, TOP)
        columns |= {"takes_over": self.takes_over.ravel()}
        columns |= {"full_takes_over": self.full_takes_over.ravel()}
        table = pl.DataFrame(columns).with_columns(
            model=pl.lit(self.model), n_tokens=self.n_prompts, n_prompts=self.n_prompts
        )
        return table.select(pl.col(name).cast(kind) for name, kind in TABLE_SCHEMA.items())

    def summaries(self) -> Rows:
        accuracy, rows = self._of_task()
        rows += self._of_heads()
        rows += self._correlations(able=does_task(accuracy, n_prompts=self.n_prompts))
        return rows + self._split_halves() + self._overlaps()

    def _of_task(self) -> tuple[Float[np.ndarray, " resample"], Rows]:
        """Accuracy, and the rows on the answers."""
        difference = self.rows["answer_logit"] - self.rows["subject_logit"]
        measured = {
            "accuracy": difference > 0,
            "most_likely": self.rows["most_likely"],
            "logit_difference": difference,
        }
        totals = {n: self.weights @ np.asarray(v, float) for n, v in measured.items()}
        means = {name: divide(total, self.weights.sum(1)) for name, total in totals.items()}
        rows = [self._row(v, quantity=n, n_tokens=self.n_prompts) for n, v in means.items()]
        return means["accuracy"], rows

    def _of_heads(self) -> Rows:
        return [
            self._row(
                mean_over_heads(self.means(name)[:, heads]),
                quantity=name,
                group=group,
                n_tokens=self.n_prompts * len(heads),
            )
            for name in COMPARED
            for group, heads in self._groups().items()
        ]

    def _correlations(self, *, able: bool) -> Rows:
        """With the study's text, over heads that have a value there; NaN of a group that was not ablated whole.
        Judged: of the second half's self-repair on top tokens, if the model does the task."""
        rows, groups, left_out = [], self._groups(), self.left_out()
        late = groups[SECOND_HALF]
        groups[POSITIVE] = late[self.means("direct_effect")[0, late] > 0]
        for name in COMPARED:
            here = self.means(name)
            for selection, tokens in TOKENS.items():
                there = self.on_text(name, selection)
                for group, heads in groups.items():
                    known = heads[~np.isnan(there[heads])]
                    in_part = left_out[heads].any()
                    if len(known) < 2 and not in_part:
                        continue
                    others = np.broadcast_to(there[known], (len(here), len(known)))
                    values = (
                        np.full(len(here), np.nan)
                        if in_part
                        else centred(rank_correlations(here[:, known], others))
                    )
                    told = {"n_tokens": self.n_prompts * len(known)}
                    quantity = f"{name}_correlation"
                    rows.append(
                        self._row(values, quantity=quantity, group=f"{group}, {tokens}", **told)
                    )
                    if able and (name, selection, group) == ("self_repair", TOP, SECOND_HALF):
                        rows.append(self._row(values, quantity=quantity, group=JUDGED, **told))
        return rows

    def _split_halves(self) -> Rows:
        """Between halves of the task's prompts, each with both orders of the names and mostly other templates: how
        alike the task's own prompts are. Corrected for the half length (Spearman and Brown): of all prompts
        against as many others. Without intervals: a resample repeats prompts, which makes its halves noisier."""
        first = np.arange(self.n_prompts) // 2 % 2 == 0
        rows = []
        for name in COMPARED:
            # Of the sample itself, the first estimate.
            halves = self.means(name, first)[:1], self.means(name, ~first)[:1]
            for group, heads in self._groups().items():
                value = float(rank_correlations(halves[0][:, heads], halves[1][:, heads])[0])
                value = 2 * value / (1 + value) if value > -1 else np.nan
                quantity, n_tokens = f"{name}_split_half", self.n_prompts * len(heads)
                rows.append(
                    self._row(_alone(value), quantity=quantity, group=group, n_tokens=n_tokens)
                )
        return rows

    def _overlaps(self) -> Rows:
        """Backup heads in common, and what chance would give; without intervals, which every prompt's map would
        be needed for."""
        if np.isnan(self.full_takes_over).any():
            return []
        common, expected, count = overlap(self.takes_over, self.full_takes_over)
        if not count:
            return []
        told = {"n_tokens": self.n_prompts * self.takes_over.size}
        rows = [
            self._row(_alone(common), quantity="backup_overlap", group=f"{count} heads", **told)
        ]
        for group, value in expected.items():
            quantity = "backup_overlap_by_chance"
            rows.append(self._row(_alone(value), quantity=quantity, group=group, **told))
        return rows

    def _groups(self) -> dict[str, Int[np.ndarray, " head"]]:
        """Heads over which there are numbers, counted layer by layer."""
        every = np.arange(self.n_layers * self.n_heads)
        late = second_half(self.n_layers)
        return {SECOND_HALF: every[np.isin(every // self.n_heads, late)], ALL_HEADS: every}

    def _row(
        self,
        estimates: Float[np.ndarray, " resample"],
        *,
        quantity: str,
        n_tokens: int,
        group: str = "",
    ) -> dict[str, Any]:
        return summary(
            estimates,
            model=self.model,
            experiment="E18",
            quantity=quantity,
            group=group,
            n_prompts=self.n_prompts,
            n_tokens=n_tokens,
        )


def _alone(value: float) -> Float[np.ndarray, " resample"]:
    """A number without resamples."""
    return np.array([value] + [np.nan] * len(BOUNDS))
