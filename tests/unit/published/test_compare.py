"""Each head beside its released value, and how well all agree."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch

from selfrepair.errors import InputError
from selfrepair.published.compare import agreement_metrics, compare
from selfrepair.published.fetch import QUANTITIES


def toy_tables(layers: int = 4, heads: int = 5, seed: int = 0) -> dict[str, torch.Tensor]:
    draw = np.random.default_rng(seed)
    return {
        name: torch.from_numpy(draw.uniform(0, 1, (layers, heads)).astype(np.float32))
        for name in QUANTITIES
    }


def study(
    tables: dict[str, torch.Tensor], *, scale: float = 1, shift: float = 0, noise: float = 0
) -> pl.DataFrame:
    """A heads table that measured scale * published + shift + noise, each within 0.1."""
    draw = np.random.default_rng(1)
    values = {QUANTITIES[name]: table.double().numpy() for name, table in tables.items()}
    values["self_repair"] = values["delta_logit"] - (
        values["ablated_direct_effect"] - values["direct_effect"]
    )
    layers, heads = next(iter(values.values())).shape
    layer, head = np.divmod(np.arange(layers * heads), heads)
    columns: dict[str, object] = {"layer": layer, "head": head}
    for name, value in values.items():
        seen = (scale * value + shift + noise * draw.normal(size=value.shape)).ravel()
        columns[name] = seen
        if not name.endswith("_clipped"):
            columns |= {f"{name}_low": seen - 0.1, f"{name}_high": seen + 0.1}
    top = pl.DataFrame(columns).select(
        pl.lit("toy").alias("model"),
        pl.lit("resample").alias("ablation"),
        pl.lit("top").alias("selection"),
        pl.all(),
    )
    # Rows that are not the authors' must not enter, and order must not matter.
    other = top.with_columns(ablation=pl.lit("mean"), direct_effect=pl.lit(99.0))
    every = top.with_columns(selection=pl.lit("all"), direct_effect=pl.lit(99.0))
    return pl.concat([other, every, top]).sample(fraction=1, shuffle=True, seed=0)


def agreement(tables, heads, **options) -> tuple[pl.DataFrame, dict[str, dict]]:
    comparison, summary = compare(heads, tables, **{"seed": 3, "resamples": 200} | options)
    return comparison, {row["quantity"]: row for row in summary.to_dicts()}


def test_each_head_meets_its_published_value():
    tables = toy_tables()
    comparison, summary = agreement(tables, study(tables, scale=2, shift=-0.25))
    names = [*QUANTITIES.values(), "self_repair"]
    assert list(summary) == names
    assert comparison.height == len(names) * 20
    row = comparison.row(
        by_predicate=(pl.col("quantity") == "from_mlps")
        & (pl.col("layer") == 2)
        & (pl.col("head") == 3),
        named=True,
    )
    value = float(tables["self_repair_from_layers"][2, 3])
    assert row["model"] == "toy"
    assert row["published"] == value
    assert row["measured"] == pytest.approx(2 * value - 0.25)
    assert row["measured_low"] == pytest.approx(2 * value - 0.35)
    assert row["measured_high"] == pytest.approx(2 * value - 0.15)


def test_self_repair_is_derived_and_only_from_all_three():
    tables = toy_tables()
    comparison, _ = agreement(tables, study(tables))
    derived = comparison.filter(quantity="self_repair")["published"].to_numpy().reshape(4, 5)
    three = [
        tables[name].double().numpy()
        for name in ("logit_diff", "ablated_direct_effects", "direct_effects")
    ]
    np.testing.assert_array_equal(derived, three[0] - (three[1] - three[2]))
    del tables["logit_diff"]
    comparison, _ = agreement(tables, study(toy_tables()))
    assert "self_repair" not in comparison["quantity"]


def test_a_line_gives_its_slope_and_intercept():
    tables = toy_tables()
    _, summary = agreement(tables, study(tables, scale=2, shift=-0.25))
    row = summary["from_norm"]
    for key in ("correlation", "correlation_low", "correlation_high"):
        assert row[key] == pytest.approx(1)
    for key in ("slope", "slope_low", "slope_high"):
        assert row[key] == pytest.approx(2)
    assert row["intercept"] == pytest.approx(-0.25)
    value = tables["self_repair_from_LN"].double().numpy()
    assert row["mean_difference"] == pytest.approx((value - 0.25).mean())
    assert row["largest_difference"] == pytest.approx(abs(value - 0.25).max())
    place = np.unravel_index(abs(value - 0.25).argmax(), value.shape)
    assert (row["largest_layer"], row["largest_head"]) == place
    assert row["n_heads"] == 20
    assert row["n_dropped"] == 0
    assert row["within_interval"] == pytest.approx((abs(value - 0.25) <= 0.1).mean())


def test_clipped_shares_have_no_interval():
    tables = toy_tables()
    comparison, summary = agreement(tables, study(tables))
    shares = comparison.filter(pl.col("quantity").str.ends_with("_share_clipped"))
    assert shares.height == 60
    assert shares["measured_low"].null_count() == shares["measured_high"].null_count() == 60
    assert summary["from_heads_share_clipped"]["within_interval"] is None
    assert summary["from_heads"]["within_interval"] == 1


def test_numbers_agree_with_numpy_and_the_interval_with_a_plain_bootstrap():
    tables = toy_tables(12, 12)
    comparison, summary = agreement(tables, study(tables, noise=0.3), resamples=4000)
    part, row = comparison.filter(quantity="direct_effect"), summary["direct_effect"]
    x, y = part["published"].to_numpy(), part["measured"].to_numpy()
    slope, intercept = np.polyfit(x, y, 1)
    assert row["slope"] == pytest.approx(slope)
    assert row["intercept"] == pytest.approx(intercept)
    assert row["correlation"] == pytest.approx(np.corrcoef(x, y)[0, 1])
    draw = np.random.default_rng(0)
    drawn = [draw.integers(0, len(x), len(x)) for _ in range(4000)]
    fits = np.array([(np.corrcoef(x[i], y[i])[0, 1], np.polyfit(x[i], y[i], 1)[0]) for i in drawn])
    ends = np.quantile(fits, [0.025, 0.975], axis=0)
    # Two bootstraps of 4000 differ by their own noise: at most 0.005 and 0.008 over 5 seeds.
    for index, name in enumerate(("correlation", "slope")):
        for end, value in zip(("low", "high"), ends[:, index], strict=True):
            assert row[f"{name}_{end}"] == pytest.approx(value, abs=0.02)


def test_the_seed_decides_the_interval():
    tables = toy_tables()
    heads = study(tables, noise=0.2)
    first, again = (agreement(tables, heads, seed=5)[1]["from_heads"] for _ in range(2))
    other = agreement(tables, heads, seed=6)[1]["from_heads"]
    assert first == again
    assert first["slope_low"] != other["slope_low"]
    assert first["slope"] == other["slope"]


def test_missing_values_are_dropped_in_pairs_and_counted():
    tables = toy_tables()
    heads = study(tables, scale=2)
    tables["direct_effects"][1, 2] = float("nan")
    where = (pl.col("layer") == 3) & (pl.col("head") == 0)
    missing = pl.when(where).then(float("nan")).otherwise(pl.col("direct_effect"))
    null = pl.when(where).then(None).otherwise(pl.col("from_heads"))
    heads = heads.with_columns(direct_effect=missing, from_heads=null)
    comparison, summary = agreement(tables, heads)
    assert comparison.filter(quantity="direct_effect").height == 20
    assert (summary["direct_effect"]["n_heads"], summary["direct_effect"]["n_dropped"]) == (18, 2)
    assert summary["direct_effect"]["slope"] == pytest.approx(2)
    assert summary["from_heads"]["n_dropped"] == 1
    assert summary["self_repair"]["n_dropped"] == 1


def test_what_is_undefined_is_nan():
    tables = toy_tables()
    heads = study(tables)
    tables["direct_effects"][:] = float("nan")
    tables["self_repair_from_heads"][:] = 0.3
    _, summary = agreement(tables, heads)
    nothing, constant = summary["direct_effect"], summary["from_heads"]
    assert nothing["n_heads"] == 0
    assert nothing["largest_layer"] is None
    assert nothing["within_interval"] is None
    for key in ("correlation", "slope", "slope_low", "intercept"):
        assert np.isnan(nothing[key])
        assert np.isnan(constant[key])
    assert np.isnan(nothing["mean_difference"])
    assert np.isfinite(constant["mean_difference"])


def test_tables_of_another_model_are_refused():
    message = r"toy: published direct_effects has shape 4 x 5 \(layers x heads\), the study 6 x 8;"
    with pytest.raises(InputError, match=message):
        compare(study(toy_tables(6, 8)), toy_tables(), seed=0, resamples=10)


@pytest.mark.usefixtures("shapes_unchecked")
def test_a_list_of_numbers_is_no_table():
    tables = {"direct_effects": torch.ones(20)}
    with pytest.raises(InputError, match="has shape 20 "):
        compare(study(toy_tables()), tables, seed=0, resamples=10)


def test_input_without_the_right_rows_is_refused():
    tables, heads = toy_tables(), study(toy_tables())
    cases = [
        (heads.drop("from_norm"), tables, "no column from_norm"),
        (heads.filter(ablation="mean"), tables, "resample ablation on top tokens .* has none"),
        (
            pl.concat([heads, heads.with_columns(model=pl.lit("other"))]),
            tables,
            "of one model, the heads table has (toy, other|other, toy)",
        ),
        (pl.concat([heads, heads]), tables, "toy: the heads table has 40 rows for 4 layers x 5"),
        (heads, {}, "nothing to compare"),
        (heads, {"from_norm": tables["logit_diff"]}, "from_norm to compare; take tables of"),
    ]
    for table, published_tables, message in cases:
        with pytest.raises(InputError, match=message) as error:
            compare(table, published_tables, seed=0, resamples=10)
        assert len(str(error.value).splitlines()) == 1


def test_metrics_leave_out_what_is_missing():
    tables = toy_tables()
    heads = study(tables)
    tables["self_repair_from_heads"][:] = 0.3
    _, summary = compare(heads, tables, seed=0, resamples=50)
    found = agreement_metrics(summary)
    assert found["from_mlps"]["slope"] == pytest.approx(1)
    assert "slope" not in found["from_heads"]
    assert "within_interval" not in found["from_norm_share_clipped"]
