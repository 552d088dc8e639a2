"""The table of heads: aggregates against plain loops, shares kept apart, missing values."""

import numpy as np
import polars as pl
import pytest
import torch

from dense_tables import dense_tables
from selfrepair.errors import InputError
from selfrepair.tables.heads import head_tables
from selfrepair.tables.swept import DrawnHeads
from selfrepair.vocabulary import EFFECTS, TERMS
from top_masks import top_of_every_head


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
                # From bins: off by 1.5 % of sqrt(ratio^2 + 0.1^2).
                middle = np.median(ratios)
                assert abs(row[f"{name}_share_q50"] - middle) <= 0.0151 * np.hypot(middle, 0.1)
            assert row["self_repair_sd"] == pytest.approx(pick["self_repair"].std(ddof=1))
            noise = pick["self_repair"].std(ddof=1) / abs(pick["self_repair"].mean())
            assert row["self_repair_noise"] == pytest.approx(noise)
            over = (pick["delta_logit"] > 0)[pick["direct_effect"] > 0]
            assert row["over_corrected_share"] == pytest.approx(over.mean())
            removed = (pick["direct_effect"] - pick["ablated_direct_effect"]).sum()
            assert row["restored_share"] == pytest.approx(pick["self_repair"].sum() / removed)


def compare(table, expected, *, columns=None, rel=1e-9):
    """All columns of a table against the reference, which has no keys in front."""
    for name in columns or expected.columns:
        if expected[name].dtype == pl.String:
            assert table[name].to_list() == expected[name].to_list()
        else:
            found, due = table[name].to_numpy(), expected[name].to_numpy()
            assert found == pytest.approx(due, rel=rel, abs=1e-9, nan_ok=True), name


@pytest.mark.parametrize("selection", ["top", "all"])
@pytest.mark.parametrize("first_position", [0, 2])
def test_sums_give_the_tables_of_the_dense_arrays(sweep, stored, read, selection, first_position):
    """Quantiles within the bins' error, everything else exactly."""
    top = top_of_every_head(sweep["direct_effect"], first_position=first_position)
    every = torch.ones_like(top)
    every[:, :first_position] = False
    swept = read(stored(sweep, first_position=first_position))
    heads, depth = head_tables({"zero": swept}, model="m", seed=3, resamples=200)
    selected = top if selection == "top" else every
    expected_heads, expected_depth = dense_tables(sweep, selected, seed=3, resamples=200)
    heads, depth = (table.filter(selection=selection) for table in (heads, depth))
    assert set(heads["n_prompts"]) == set(depth["n_prompts"]) == {6}  # of the sample
    assert heads.columns[3:] == expected_heads.columns
    binned = [name for name in heads.columns if "_share_q" in name]
    exact = [n for n in expected_heads.columns if n not in binned and n != "n_prompts"]
    compare(heads, expected_heads, columns=exact)
    compare(depth, expected_depth, columns=[n for n in expected_depth.columns if n != "n_prompts"])
    # Of two values in order each is off by 1.5 % of itself: of three top tokens that may be more than
    # 1.5 % of the number between them.
    if selection == "all":
        for name in binned:
            due = expected_heads[name].to_numpy()
            assert (np.abs(heads[name].to_numpy() - due) <= 0.016 * np.hypot(due, 0.1)).all(), name


def instances(sweep, top, random):
    """The rows of a sweep of drawn tokens: of these masks [prompt, position, layer, head]."""
    prompt, position, layer, head = places = (top | random).nonzero(as_tuple=True)
    rows = {name: values[places] for name, values in sweep.items()}
    flags = {"top": top[places].byte(), "random": random[places].byte()}
    return rows | {"prompt": prompt, "position": position, "layer": layer, "head": head} | flags


@pytest.fixture(scope="module")
def drawn(sweep):
    """Masks of drawn tokens, some of them both; one head has no token, another one in a single prompt."""
    draw = torch.Generator().manual_seed(1)
    shape = sweep["direct_effect"].shape
    top, random = (torch.rand(shape, generator=draw) < share for share in (0.05, 0.1))
    top[..., 1, 1] = random[..., 1, 1] = False
    top[:, :, 2, 0] = False
    top[0, 3:5, 2, 0] = True
    assert (top & random).any()
    return top, random


def test_drawn_tokens_give_the_tables_of_the_dense_arrays(sweep, drawn):
    swept = DrawnHeads(instances(sweep, *drawn), prompts=6)
    heads, depth = head_tables({"zero": swept}, model="m", seed=3, resamples=200)
    for selection, mask in zip(("top", "all"), drawn, strict=True):
        expected_heads, expected_depth = dense_tables(sweep, mask, seed=3, resamples=200)
        own = heads.filter(selection=selection)
        compare(own, expected_heads)
        compare(depth.filter(selection=selection), expected_depth)
    lacking = heads.filter(layer=1, head=1)
    assert lacking["n_tokens"].to_list() == lacking["n_prompts"].to_list() == [0, 0]
    assert all(lacking.select(pl.selectors.float().is_nan().all()).row(0))
    single = heads.filter(selection="top", layer=2, head=0).row(0, named=True)
    assert (single["n_tokens"], single["n_prompts"]) == (2, 1)
    assert np.isfinite(single["self_repair"])
    assert np.isnan(single["self_repair_low"])


def test_the_order_of_instances_and_prompts_without_any_change_nothing_but_rounding(sweep, drawn):
    rows = instances(sweep, *drawn)
    order = torch.randperm(len(rows["prompt"]), generator=torch.Generator().manual_seed(2))
    other = {name: values[order] for name, values in rows.items()}
    tables = [
        head_tables({"zero": DrawnHeads(each, prompts=6)}, model="m", seed=3, resamples=50)
        for each in (rows, other)
    ]
    for table, again in zip(*tables, strict=True):
        compare(table, again, rel=1e-12)
    # More layers and heads than have instances: rows of their own, without a value.
    more = DrawnHeads(rows, prompts=9, n_layers=6, n_heads=3)
    heads, _ = head_tables({"zero": more}, model="m", seed=3, resamples=50)
    assert heads.filter(selection="top").height == 6 * 3
    assert heads.filter(layer=5)["self_repair"].is_nan().all()
    same = heads.filter(pl.col("layer") < 5, pl.col("head") < 2)
    compare(same, tables[0][0], columns=["n_tokens", "n_prompts", "self_repair", "from_norm_share"])


def test_without_random_tokens_there_are_no_rows_of_all_tokens(sweep, drawn):
    top, _ = drawn
    swept = DrawnHeads(instances(sweep, top, torch.zeros_like(top)), prompts=6)
    for table in head_tables({"zero": swept}, model="m", seed=3, resamples=50):
        assert set(table["selection"]) == {"top"}


def test_no_instances_are_refused(sweep, drawn):
    none = torch.zeros_like(drawn[0])
    with pytest.raises(InputError, match="no tokens were drawn"):
        DrawnHeads(instances(sweep, none, none), prompts=6)


def test_missing_is_nan_and_never_zero(sweep, stored, read):
    holes = {name: values.clone() for name, values in sweep.items()}
    for values in holes.values():
        values[..., 1, 1] = torch.nan
    holes["direct_effect"] = sweep["direct_effect"]
    heads, _ = head_tables({"mean": read(stored(holes))}, model="m", seed=0, resamples=100)
    row = heads.filter(selection="all", layer=1, head=1)
    assert row["self_repair"].is_nan().all()
    assert not heads.filter(selection="all", layer=1, head=0)["self_repair"].is_nan().any()


def test_without_post_norms_their_term_is_exactly_zero(sweep, stored, read, tables, drawn):
    bare = {name: values for name, values in sweep.items() if name != "from_post_norms"}
    swept = read(stored(bare))
    options = {"model": "m", "seed": 0, "resamples": 200}
    pairs = [*zip(head_tables({"resample": swept, "zero": swept}, **options), tables, strict=True)]
    sampled = [
        head_tables({"zero": DrawnHeads(instances(each, *drawn), prompts=6)}, **options)
        for each in (bare, sweep)
    ]
    for table, other in [*pairs, *zip(*sampled, strict=True)]:
        own = [name for name in table.columns if name.startswith("from_post_norms")]
        assert len(own) >= 7  # mean, share, clipped share, their bounds where they have some
        numbers = table.select(pl.col(own).fill_nan(0))
        assert (numbers == 0).to_numpy().all()
        assert table.columns == other.columns
        rest = [name for name in table.columns if name not in own]
        assert table.select(rest).equals(other.select(rest))
    assert (pairs[0][0].select(own) == 0).to_numpy().all()


def test_one_prompt_has_values_but_no_intervals(sweep, stored, read):
    one = {name: values[:1].repeat(1, 3, 1, 1) for name, values in sweep.items()}
    heads, _ = head_tables({"resample": read(stored(one))}, model="m", seed=0, resamples=100)
    assert heads["self_repair"].is_not_nan().all()
    assert heads["self_repair_low"].is_nan().all()
    assert heads["from_norm_share_high"].is_nan().all()


def test_no_sweeps_are_refused():
    with pytest.raises(InputError, match="no sweeps to decompose"):
        head_tables({}, model="m", seed=0, resamples=10)
