"""Tokens of the page: those of the sweeps and of the experiments once each, and the text that they stand in."""

import polars as pl
import pytest

from page_study import POSITIONS, WORDS, documents, prompts_and_spans, sweep, words
from selfrepair.errors import InputError
from selfrepair.files.storage import read_json, write_json
from selfrepair.page.tokens import measured_tokens, prompt_texts

KEYS = ("ablation", "layer", "head", "prompt", "position")
CHOSEN = pl.DataFrame(
    {"layer": [0, 3], "head": [0, 2], "prompt": [1, 6], "position": [3, 39]}
    | {"direct_effect": [9.0, 2.0], "delta_logit": [9.0, -1.0], "self_repair": [9.0, 1.0]}
)


@pytest.fixture
def sweeps(tmp_path):
    return {name: sweep(tmp_path, name, seed=at) for at, name in enumerate(("zero", "resample"))}


def test_every_measured_token_is_there_as_the_shards_have_it(sweeps):
    from safetensors.torch import load_file

    found = measured_tokens(sweeps, CHOSEN.clear())
    assert found.select(KEYS).is_duplicated().sum() == 0
    assert found.equals(found.sort(KEYS))
    for ablation, index in sweeps.items():
        shards = [load_file(index.parent / file["path"]) for file in read_json(index)["files"]]
        rows = found.filter(ablation=ablation)
        assert rows.height == sum(len(shard["layer"]) for shard in shards)
        for shard in shards:
            at = 7
            keys = {name: int(shard[name][at]) for name in KEYS[1:]}
            (row,) = rows.filter(**keys).to_dicts()
            assert row["self_repair"] == pytest.approx(float(shard["self_repair"][at]))
            assert row["delta_logit"] == pytest.approx(float(shard["delta_logit"][at]))
            assert row["top"] == bool(shard["top"][at])


def test_tokens_of_the_experiments_are_added_where_the_sweep_has_not_measured_them(sweeps):
    """The first of CHOSEN was drawn by the sweep as a top token too, the second was not."""
    alone = measured_tokens(sweeps, CHOSEN.clear())
    keys = CHOSEN.row(0, named=True)
    place = {name: keys[name] for name in KEYS[1:]}
    assert alone.filter(**place, ablation="resample", top=True).height == 1
    found = measured_tokens(sweeps, CHOSEN)
    assert found.height == alone.height + 1
    assert found.filter(**place, ablation="resample")["self_repair"][0] != 9.0
    added = found.filter(layer=3, head=2, prompt=6, position=39)
    assert added.select("ablation", "top", "random", "self_repair").row(0) == (
        *("resample", True, False),
        1.0,
    )


def test_a_sweep_over_all_tokens_has_no_single_ones(sweeps):
    index = sweeps["zero"]
    write_json(index, read_json(index) | {"tokens": "all"})
    assert measured_tokens({"zero": index}, CHOSEN.clear()).is_empty()


def test_a_damaged_shard_is_refused(sweeps):
    index = sweeps["zero"]
    path = index.parent / read_json(index)["files"][0]["path"]
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(InputError, match="differs from the checksum"):
        measured_tokens(sweeps, CHOSEN.clear())


def test_prompts_have_their_own_text_and_where_it_is_from():
    prompts, spans = prompts_and_spans()
    found = prompt_texts(prompts, spans, documents(), [5, 2, 2])
    assert found["prompt"] == [2, 5]
    assert found["source"] == ["news"] * 2
    assert found["document"] == ["row 2", "row 5"]
    for text, skips, lengths in zip(found["text"], found["skips"], found["lengths"], strict=True):
        assert text == "".join(words())
        at, tokens = 0, []
        for skip, length in zip(skips, lengths, strict=True):
            at += skip
            tokens.append(text[at : at + length])
            at += length
        assert tokens == [WORDS[n % len(WORDS)] for n in range(POSITIONS)]
