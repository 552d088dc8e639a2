"""Which pairs of heads are ablated together, from made-up maps."""

from __future__ import annotations

import numpy as np

from repair_tables import repair_sums
from selfrepair.tables.pairs import BACKUP, CONTROL, choose_pairs
from selfrepair.tables.repair_map import repair_map_table
from selfrepair.vocabulary import components

LAYERS, HEADS, PROMPTS = 6, 3, 22


def map_with(*entries: tuple[tuple[int, int], tuple[int, int], float]) -> dict[str, np.ndarray]:
    """Sums of a map in which these later heads rise by so many logits, alike on every prompt, and no
    other head does."""
    sums = repair_sums(LAYERS, HEADS, prompts=PROMPTS, noise=0.0)
    parts = components(LAYERS, HEADS, post_norms=False)
    values = {name: sums[name].copy() for name in ("sums", "squares", "products")}
    for array in values.values():
        array[..., : LAYERS * HEADS] = 0
    for (layer, head), later, mean in entries:
        at = (layer, head, parts.index(("head", *later)))
        values["sums"][at] = values["products"][at] = PROMPTS * mean
        values["squares"][at] = PROMPTS * mean**2
    return sums | values


def by_kind(pairs: list[dict]) -> dict[str, list[tuple]]:
    kinds: dict[str, list[tuple]] = {BACKUP: [], CONTROL: []}
    for pair in pairs:
        kinds[pair["kind"]].append((tuple(pair["first"]), tuple(pair["second"])))
    return kinds


def test_the_strongest_backups_are_taken_largest_first():
    entries = [((0, 1), (2, 0), 0.1), ((1, 2), (5, 1), 0.3), ((3, 0), (4, 2), 0.2)]
    pairs = choose_pairs({"resample": map_with(*entries)}, count=2, seed=0)
    assert by_kind(pairs)[BACKUP] == [((1, 2), (5, 1)), ((3, 0), (4, 2))]


def test_small_and_falling_entries_are_no_backups():
    entries = [((0, 1), (2, 0), 0.019), ((1, 2), (5, 1), -0.3), ((3, 0), (4, 2), 0.021)]
    pairs = choose_pairs({"resample": map_with(*entries)}, count=5, seed=0)
    assert by_kind(pairs)[BACKUP] == [((3, 0), (4, 2))]


def test_an_entry_whose_interval_contains_0_is_no_backup():
    noisy = repair_sums(LAYERS, HEADS, prompts=4, noise=2.0)
    table = repair_map_table({"resample": noisy}, model="m").filter(kind="head")
    kept = by_kind(choose_pairs({"resample": noisy}, count=50, seed=0))[BACKUP]
    low = {
        ((row["layer"], row["head"]), (row["component_layer"], row["component_head"])): row["low"]
        for row in table.to_dicts()
    }
    assert all(low[pair] > 0 for pair in kept)
    assert len(kept) < (table["mean"] > 0.02).sum()


def test_a_control_is_another_head_of_the_same_layer_that_is_no_backup():
    entries = [((1, 2), (5, 1), 0.3), ((1, 2), (5, 0), 0.2), ((3, 0), (5, 1), 0.1)]
    sums = map_with(*entries)
    drawn = set()
    for seed in range(20):
        pairs = by_kind(choose_pairs({"resample": sums}, count=3, seed=seed))
        assert len(pairs[BACKUP]) == 3
        # Of three heads two back up (1, 2): one control is left for its two pairs.
        assert pairs[CONTROL][0] == ((1, 2), (5, 2))
        assert len(pairs[CONTROL]) == 2
        first, (layer, head) = pairs[CONTROL][1]
        assert (first, layer) == ((3, 0), 5)
        drawn.add(head)
    assert drawn == {0, 2}


def test_pairs_depend_on_the_seed_alone():
    maps = {"resample": map_with(((1, 2), (5, 1), 0.3), ((0, 0), (3, 1), 0.2))}
    assert choose_pairs(maps, count=4, seed=3) == choose_pairs(maps, count=4, seed=3)


def test_without_a_map_of_resample_ablation_there_are_none():
    sums = map_with(((1, 2), (5, 1), 0.3))
    assert choose_pairs({}, count=4, seed=0) == []
    assert choose_pairs({"mean": sums}, count=4, seed=0) == []
    assert choose_pairs({"resample": map_with()}, count=4, seed=0) == []
