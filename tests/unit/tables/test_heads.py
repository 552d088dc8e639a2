"""The table of heads: aggregates against plain loops, shares kept apart, missing values."""

import numpy as np
import polars as pl
import pytest
import torch

from selfrepair.errors import InputError
from selfrepair.tables.heads import head_tables
from selfrepair.vocabulary import EFFECTS, TERMS


def test_one_row_per_ablation_selection_layer_and_head(tables, sweep):
    heads, _ = tables
    n_layers, n_heads = sweep["direct_effect"].shape[2:]
    assert heads.height == 2 * 2 * n_layers * n_heads
    assert heads.select("ablation", "selection", "layer", "head").n_unique() == heads.height


def test_aggregates_equal_a_plain_loop(sweep, tables):
    heads, _ = tables
    prompts, positions, n_layers, n_heads = sweep["direct_effect"].shape
    for layer in range(n_layers):
        for head in range(n_heads):
            row = heads.row(
                by_predicate=(pl.col("ablation") == "resample")
                & (pl.col("selection") == "top")
                & (pl.col("layer") == layer)
                & (pl.col("head") == head),
                named=True,
            )
            effects = sweep["direct_effect"][:, :, layer, head].flatten().double().numpy()
            chosen = np.argsort(-effects, kind="stable")[: int(0.02 * prompts * positions)]
            pick = {
                n: sweep[n][:, :, layer, head].flatten().double().numpy()[chosen] for n in EFFECTS
            }
            assert row["n_tokens"] == len(chosen) == 3
            for name in EFFECTS:
                assert row[name] == pytest.approx(pick[name].mean(), rel=1e-12)
            for name in ("self_repair", *TERMS):
                ratios = pick[name] / pick["direct_effect"]
                share = pick[name].sum() / pick["direct_effect"].sum()
                assert row[f"{name}_share"] == pytest.approx(share, rel=1e-12)
                assert row[f"{name}_share_clipped"] == pytest.approx(np.clip(ratios, 0, 1).mean())
                assert row[f"{name}_share_q50"] == pytest.approx(np.median(ratios))
            assert row["self_repair_sd"] == pytest.approx(pick["self_repair"].std())
            noise = pick["self_repair"].std() / abs(pick["self_repair"].mean())
            assert row["self_repair_noise"] == pytest.approx(noise)
            over = (pick["delta_logit"] > 0)[pick["direct_effect"] > 0]
            assert row["over_corrected_share"] == pytest.approx(over.mean())
            removed = (pick["direct_effect"] - pick["ablated_direct_effect"]).sum()
            assert row["restored_share"] == pytest.approx(pick["self_repair"].sum() / removed)


def test_missing_is_nan_and_never_zero(sweep, by_layer):
    holes = {name: values.clone() for name, values in sweep.items()}
    for values in holes.values():
        values[..., 1, 1] = torch.nan
    holes["direct_effect"] = sweep["direct_effect"]
    heads, _ = head_tables({"mean": by_layer(holes)}, model="m", seed=0, resamples=100)
    row = heads.filter(selection="all", layer=1, head=1)
    assert row["self_repair"].is_nan().all()
    assert not heads.filter(selection="all", layer=1, head=0)["self_repair"].is_nan().any()


def without_post_norms(sweep):
    return {name: values for name, values in sweep.items() if name != "from_post_norms"}


def test_without_post_norms_their_term_is_exactly_zero(sweep, by_layer, tables):
    layers = by_layer(without_post_norms(sweep))
    for table, other in zip(
        head_tables({"resample": layers, "zero": layers}, model="m", seed=0, resamples=200),
        tables,
        strict=True,
    ):
        own = [name for name in table.columns if name.startswith("from_post_norms")]
        assert len(own) >= 7  # mean, share, clipped share, their bounds where they have some
        assert (table.select(own) == 0).to_numpy().all()
        assert table.columns == other.columns
        rest = [name for name in table.columns if name not in own]
        assert table.select(rest).equals(other.select(rest))


def test_a_sweep_of_top_tokens_has_no_rows_of_all_tokens(sweep, by_layer):
    """What was not swept is NaN; what was is averaged as it was chosen."""
    swept = torch.zeros(sweep["direct_effect"].shape, dtype=torch.bool)
    swept[1, 3:6] = True
    part = {name: values.where(swept, torch.nan) for name, values in sweep.items()}
    part["direct_effect"] = sweep["direct_effect"]
    heads, depth = head_tables({"resample": by_layer(part)}, model="m", seed=0, resamples=50)
    assert set(heads["selection"]) == set(depth["selection"]) == {"top"}
    row = heads.filter(layer=2, head=1).row(0, named=True)
    assert row["n_tokens"] == 3
    assert row["self_repair"] == pytest.approx(float(sweep["self_repair"][1, 3:6, 2, 1].mean()))
    layers = by_layer(without_post_norms(part))
    heads, _ = head_tables({"resample": layers}, model="m", seed=0, resamples=50)
    assert (heads["from_post_norms"] == 0).all()


def test_tokens_before_the_first_position_are_in_no_row(sweep, by_layer, tables):
    """As if the sample had not had them, whatever was measured there."""
    longer = {name: torch.cat([v[:, :1] + 50, v], 1) for name, v in sweep.items()}
    layers = by_layer(longer)
    options = {"model": "m", "seed": 0, "resamples": 200, "first_position": 1}
    found = head_tables({"resample": layers, "zero": layers}, **options)
    for table, expected in zip(found, tables, strict=True):
        assert table.equals(expected, null_equal=True)


def test_one_prompt_has_values_but_no_intervals(sweep, by_layer):
    one = {name: values[:1].repeat(1, 3, 1, 1) for name, values in sweep.items()}
    heads, _ = head_tables({"resample": by_layer(one)}, model="m", seed=0, resamples=100)
    assert heads["self_repair"].is_not_nan().all()
    assert heads["self_repair_low"].is_nan().all()
    assert heads["from_norm_share_high"].is_nan().all()


def test_no_sweeps_are_refused():
    with pytest.raises(InputError, match="no sweeps to decompose"):
        head_tables({}, model="m", seed=0, resamples=10)
