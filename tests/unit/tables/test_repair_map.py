"""Tables of who repairs, against a slow computation from each prompt's own sums."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import polars.testing
import pytest
import torch

from documented import documented_columns
from selfrepair.errors import InputError
from selfrepair.files.shards import gather
from selfrepair.files.storage import write_json, write_tensors
from selfrepair.files.sums import summed_shards
from selfrepair.tables.intervals import standard_errors
from selfrepair.tables.repair_map import (
    BACKUP_SCHEMA,
    BACKUPS,
    LAYER_SCHEMA,
    MAP_SCHEMA,
    backup_heads_table,
    repair_layers_table,
    repair_map_table,
)
from selfrepair.vocabulary import (
    ATTENTION_NORM,
    FINAL_NORM,
    HEAD,
    MLP,
    MLP_NORM,
    OTHER_HEADS,
    SMALLEST_REPAIR,
    components,
)

LAYERS, HEADS, PROMPTS = 4, 3, 15
NO_TOKENS = (1, 2)  # a head without mapped tokens


def is_later(kind: str, layer: int, ablated: int) -> bool:
    return kind == FINAL_NORM or layer > ablated or (kind != HEAD and layer == ablated)


class Made:
    """Per prompt the sums and counts of a made-up map, and what they add up to."""

    def __init__(self, *, post_norms: bool = False, seed: int = 0) -> None:
        draw = np.random.default_rng(seed)
        self.parts = components(LAYERS, HEADS, post_norms=post_norms)
        self.counts = draw.integers(0, 4, (PROMPTS, LAYERS, HEADS)).astype(float)
        self.counts[:, *NO_TOKENS] = 0
        size = draw.normal(0, 0.04, (LAYERS, HEADS, len(self.parts)))
        noise = draw.normal(0, 0.03, (PROMPTS, *size.shape))
        later = [
            [is_later(kind, at, layer) for kind, at, _ in self.parts] for layer in range(LAYERS)
        ]
        self.values = (size + noise) * self.counts[..., None] * np.array(later)[:, None]

    def sums(self, prompts: slice = slice(None)) -> dict[str, np.ndarray]:
        values, counts = self.values[prompts], self.counts[prompts]
        return {
            "sums": values.sum(0),
            "squares": (values**2).sum(0),
            "products": (values * counts[..., None]).sum(0),
            "tokens": counts.sum(0),
            "tokens_squared": (counts**2).sum(0),
            "prompts": (counts > 0).sum(0).astype(float),
        }

    def mean(self, layer: int, head: int, component: int) -> tuple[float, float]:
        """The mean over tokens, and half its interval, from the prompts one by one."""
        counts, values = self.counts[:, layer, head], self.values[:, layer, head, component]
        mean, number = values.sum() / counts.sum(), int((counts > 0).sum())
        spread = sum((s - mean * n) ** 2 for s, n in zip(values, counts, strict=True))
        error = np.sqrt(spread * number / (number - 1)) / counts.sum()
        return mean, standard_errors(np.array([number]))[0] * error


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "post-norms"])
def made(request: pytest.FixtureRequest) -> Made:
    return Made(post_norms=request.param)


def maps(made: Made) -> dict[str, dict[str, np.ndarray]]:
    return {"resample": made.sums(), "zero": made.sums()}


def of_head(table: pl.DataFrame, layer: int, head: int) -> pl.DataFrame:
    return table.filter(ablation="resample", layer=layer, head=head)


def measured_heads() -> list[tuple[int, int]]:
    heads = [(layer, head) for layer in range(LAYERS) for head in range(HEADS)]
    return [each for each in heads if each != NO_TOKENS]


def test_entries_and_their_intervals_are_those_of_the_prompts(made: Made) -> None:
    table = repair_map_table(maps(made), model="m")
    assert table["ablation"].unique(maintain_order=True).to_list() == ["resample", "zero"]
    for layer, head in measured_heads():
        rows = of_head(table, layer, head).to_dicts()
        kept = {(r["kind"], r["component_layer"], r["component_head"]): r for r in rows}
        left_out = []
        for index, (kind, at, number) in enumerate(made.parts):
            row = kept.pop((kind, at if at >= 0 else None, number if number >= 0 else None), None)
            if not is_later(kind, at, layer):
                assert row is None
                continue
            mean, half = made.mean(layer, head, index)
            if kind == HEAD and abs(mean) < SMALLEST_REPAIR:
                assert row is None
                left_out.append(mean)
                continue
            assert row is not None
            assert row["n_components"] == 1
            want = (mean, mean - half, mean + half)
            assert (row["mean"], row["low"], row["high"]) == pytest.approx(want, abs=1e-12)
            assert row["n_tokens"] == made.counts[:, layer, head].sum()
            assert row["n_prompts"] == (made.counts[:, layer, head] > 0).sum()
        others = [row for row in kept.values() if row["kind"] == OTHER_HEADS]
        assert len(kept) == len(others) == bool(left_out)
        for row in others:
            assert row["n_components"] == len(left_out)
            assert row["mean"] == pytest.approx(sum(left_out), abs=1e-12)
            assert row["low"] is None is row["high"] is row["component_layer"]


def test_some_heads_are_kept_and_some_are_summed(made: Made) -> None:
    counts = dict(repair_map_table(maps(made), model="m")["kind"].value_counts().iter_rows())
    assert counts[HEAD] > 20
    assert counts[OTHER_HEADS] > 10


def test_rows_of_a_head_add_up_to_the_terms_of_its_self_repair(made: Made) -> None:
    table = repair_map_table(maps(made), model="m")
    terms = {
        "from_heads": {HEAD, OTHER_HEADS},
        "from_mlps": {MLP},
        "from_post_norms": {ATTENTION_NORM, MLP_NORM},
        "from_norm": {FINAL_NORM},
    }
    for layer, head in measured_heads():
        rows, number = of_head(table, layer, head), made.counts[:, layer, head].sum()
        for kinds in terms.values():
            which = [kind in kinds for kind, _, _ in made.parts]
            want = made.values[:, layer, head][:, which].sum() / number
            got = rows.filter(pl.col("kind").is_in(kinds))["mean"].sum()
            assert got == pytest.approx(want, abs=1e-12)


def test_a_head_without_tokens_has_no_numbers(made: Made) -> None:
    rows = of_head(repair_map_table(maps(made), model="m"), *NO_TOKENS)
    assert rows.height > LAYERS - NO_TOKENS[0]
    assert rows["mean"].is_nan().all()
    (row,) = of_head(backup_heads_table(maps(made), model="m"), *NO_TOKENS).to_dicts()
    assert (row["rank"], row["n_backups"], row["n_tokens"]) == (1, 0, 0)
    assert row["backup_layer"] is row["mean"] is row["backs_up"] is None


def test_backups_are_the_largest_entries_of_later_heads(made: Made) -> None:
    table = backup_heads_table(maps(made), model="m")
    for layer, head in measured_heads():
        entries = []
        for index, (kind, at, number) in enumerate(made.parts):
            if kind == HEAD and at > layer:
                mean, half = made.mean(layer, head, index)
                entries.append((mean, mean - half, mean + half, at, number))
        entries.sort(reverse=True)
        backups = [entry for entry in entries if entry[0] >= SMALLEST_REPAIR and entry[1] > 0]
        rows = of_head(table, layer, head).to_dicts()
        assert [row["rank"] for row in rows] == list(
            range(1, max(1, min(BACKUPS, len(entries))) + 1)
        )
        assert {row["n_backups"] for row in rows} == {len(backups)}
        for row, entry in zip(rows, entries, strict=False):
            got = [row[name] for name in ("mean", "low", "high", "backup_layer", "backup_head")]
            assert got == pytest.approx(list(entry), abs=1e-12)
            assert row["backs_up"] == (entry in backups)
        if not entries:
            assert rows[0]["backup_layer"] is rows[0]["mean"] is rows[0]["backs_up"] is None


def test_every_head_counts_those_that_it_backs_up(made: Made) -> None:
    table = backup_heads_table(maps(made), model="m").filter(ablation="resample", rank=1)
    assert table.height == LAYERS * HEADS
    assert table["n_backed_up"].sum() == table["n_backups"].sum() > 3
    assert table.filter(layer=0)["n_backed_up"].to_list() == [0] * HEADS
    for backup in range(HEADS):
        number = 0
        for layer, head in measured_heads():
            if layer < 3:
                mean, half = made.mean(layer, head, made.parts.index((HEAD, 3, backup)))
                number += mean >= SMALLEST_REPAIR and mean - half > 0
        assert table.filter(layer=3, head=backup)["n_backed_up"].item() == number


def test_layers_are_sums_over_their_parts_and_means_over_ablated_heads(made: Made) -> None:
    table = repair_layers_table(maps(made), model="m").filter(ablation="resample")
    seen = 0
    for layer in range(LAYERS):
        heads = [head for at, head in measured_heads() if at == layer]
        for kind, at in dict.fromkeys((kind, at) for kind, at, _ in made.parts):
            place = pl.col("component_layer").eq_missing(None if at < 0 else at)
            rows = table.filter(place, layer=layer, kind=kind)
            assert rows.height == is_later(kind, at, layer)
            if rows.is_empty():
                continue
            seen += 1
            which = [part[:2] == (kind, at) for part in made.parts]
            means = [
                made.values[:, layer, head][:, which].sum() / made.counts[:, layer, head].sum()
                for head in heads
            ]
            assert rows["mean"].item() == pytest.approx(np.mean(means), abs=1e-12)
            assert rows["n_heads"].item() == len(heads)
            assert rows["n_tokens"].item() == made.counts[:, layer].sum()
    assert seen == table.height


def test_tables_are_documented_and_without_maps_empty(made: Made) -> None:
    for name, make, schema in (
        ("repair_map", repair_map_table, MAP_SCHEMA),
        ("backup_heads", backup_heads_table, BACKUP_SCHEMA),
        ("repair_layers", repair_layers_table, LAYER_SCHEMA),
    ):
        full, empty = make(maps(made), model="m"), make({}, model="m")
        assert dict(full.schema) == dict(empty.schema) == schema
        assert empty.is_empty()
        assert documented_columns(name) == set(schema)


def written(folder: Path, made: Made, *, name: str = "map.") -> Path:
    """Two shards of a sweep, the first with 6 prompts, and their index."""
    shards = [folder / f"shard-{n}of2.safetensors" for n in (0, 1)]
    for shard, (start, stop) in zip(shards, [(0, 6), (6, PROMPTS)], strict=True):
        sums = made.sums(slice(start, stop))
        tensors = {f"{name}{key}": torch.from_numpy(value) for key, value in sums.items()}
        record: dict[str, Any] = {"prompts": [start, stop], "wall_seconds": 1.0}
        write_tensors(shard, tensors | {"prompt": torch.arange(3)}, record)
    write_json(folder / "resample.json", gather(shards, relative_to=folder))
    return folder / "resample.json"


def test_shards_add_up(made: Made, tmp_path: Path) -> None:
    total = summed_shards(written(tmp_path, made), "map.")
    assert set(total) == set(made.sums())
    for name, want in made.sums().items():
        np.testing.assert_allclose(total[name], want, atol=1e-13)
    table = repair_map_table({"resample": total}, model="m")
    want = repair_map_table({"resample": made.sums()}, model="m")
    pl.testing.assert_frame_equal(table, want, abs_tol=1e-12)


def test_shards_without_a_map_are_refused(made: Made, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"shard-0of2.safetensors: holds no map\.\*; delete it"):
        summed_shards(written(tmp_path, made, name="other."), "map.")
