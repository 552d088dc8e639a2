"""Heads that `sweep.heads` leaves out: rows without numbers, and no mean of a group that has any of them."""

import numpy as np
import polars as pl
import pytest
import torch

from selfrepair.claims.claims import CLAIMS, UNDECIDED, Depth
from selfrepair.claims.judge import estimate, judge
from selfrepair.tables.findings import findings, headline
from selfrepair.tables.heads import COUNTS, head_tables
from selfrepair.tables.summaries import summary_table
from selfrepair.tables.swept import DrawnHeads
from selfrepair.vocabulary import EFFECTS, LAST_BUT_ONE, SECOND_HALF, depth_groups

LAYERS, HEADS, PROMPTS = 8, 2, 6
KEYS = ["model", "ablation", "selection", "layer", "head", "depth", *COUNTS]


def instances() -> dict[str, torch.Tensor]:
    """Four tokens of every head, half of them drawn from all tokens; the last head has none."""
    draw = np.random.default_rng(4)
    rows = [
        (draw.integers(PROMPTS), position, layer, head, position < 2, position >= 2)
        for layer, head in np.ndindex(LAYERS, HEADS)
        for position in range(4)
        if (layer, head) != (LAYERS - 1, HEADS - 1)
    ]
    names = ("prompt", "position", "layer", "head", "top", "random")
    found = {n: torch.tensor(v) for n, v in zip(names, zip(*rows, strict=True), strict=True)}
    effects = {name: torch.from_numpy(draw.normal(0.2, 1, len(rows))) for name in EFFECTS}
    return found | effects


def tables_of(ablated: set[tuple[int, int]] | None) -> tuple[pl.DataFrame, pl.DataFrame]:
    rows = instances()
    if ablated is not None:
        places = zip(rows["layer"].tolist(), rows["head"].tolist(), strict=True)
        kept = torch.tensor([place in ablated for place in places])
        rows = {name: values[kept] for name, values in rows.items()}
    swept = DrawnHeads(rows, prompts=PROMPTS, n_layers=LAYERS, n_heads=HEADS)
    options = {"model": "m", "seed": 0, "resamples": 200, "ablated": ablated}
    return head_tables({"resample": swept}, **options)


@pytest.fixture(scope="module")
def whole() -> tuple[pl.DataFrame, pl.DataFrame]:
    return tables_of(None)


def groups_with(ablated: set[tuple[int, int]]) -> list[str]:
    """The groups of layers of which every head is among these."""
    return [
        name
        for name, layers in depth_groups(LAYERS).items()
        if all((layer, head) in ablated for layer in layers for head in range(HEADS))
    ]


HALF = {(layer, head) for layer in range(4, 8) for head in range(HEADS)}


@pytest.mark.parametrize("ablated", [HALF, {(7, 0), (7, 1), (6, 0), (6, 1)}, {(5, 1), (2, 0)}])
def test_what_was_ablated_is_as_in_the_whole_sweep_and_all_else_is_missing(ablated, whole):
    for found, full in zip(tables_of(ablated), whole, strict=True):
        assert found.select(KEYS[:3]).equals(full.select(KEYS[:3]))
        if "head" in found.columns:
            known = [place in ablated for place in found.select("layer", "head").rows()]
        else:
            known = found["depth"].is_in(groups_with(ablated)).to_list()
        assert any(known) or "depth" in found.columns
        assert found.filter(known).equals(full.filter(known), null_equal=True)
        rest = found.filter(~pl.Series(known))
        assert rest.height
        for name in COUNTS:
            assert rest[name].null_count() == rest.height
        numbers = rest.select(pl.selectors.float())
        assert numbers.select(pl.all().is_nan().all()).row(0) == (True,) * numbers.width
    heads, _ = tables_of(HALF)
    # Ablated, but without a token: that is a count of its own.
    assert heads.filter(layer=7, head=1)["n_tokens"].to_list() == [0, 0]


def test_every_head_named_is_every_head(whole):
    every = {(layer, head) for layer in range(LAYERS) for head in range(HEADS)}
    for found, full in zip(tables_of(every), whole, strict=True):
        assert found.equals(full, null_equal=True)


def test_findings_say_what_was_not_measured_and_scalars_leave_it_out():
    _, depth = tables_of(HALF)
    text = findings(depth, {"conservation": 0.0})
    assert "| m | first quarter |  |  | not measured |" in text
    assert "nan" not in text
    last = depth.filter(selection="top", depth="last quarter")
    assert f"| m | last quarter | {last['n_tokens'].item()} |" in text
    assert set(headline(depth)["m"]) == {"third quarter", "last quarter", SECOND_HALF, LAST_BUT_ONE}


def test_claims_about_heads_that_were_left_out_are_not_measured():
    """Of a few heads of the second half there is no mean of it, however good they would look."""
    for ablated, measured in ((HALF, True), ({(7, 0), (6, 1)}, False)):
        claims = judge(tables_of(ablated)[1], summary_table([]))
        of_depth = {claim.id for claim in CLAIMS if isinstance(claim.value, Depth)}
        rows = claims.filter(pl.col("id").is_in(of_depth)).to_dicts()
        assert len(rows) >= 4
        for row in rows:
            assert (row["value"] is not None) == (row["n_tokens"] > 0) == measured
            if not measured:
                assert (row["verdict"], estimate(row)) == (UNDECIDED, "not measured")
                assert (row["n_prompts"], row["n_tokens"]) == (0, 0)
