"""The table that says how long a model was trained and how well it predicts."""

from __future__ import annotations

import polars as pl
import pytest

from documented import documented_columns
from selfrepair.tables.training import SCHEMA, training_table

# As results/<study>/<model>/clean.json has it, among other things.
CLEAN = {"prompts": [0, 160], "tokens_per_prompt": 128, "mean_surprisal_nats": 3.40829}


@pytest.mark.parametrize("tokens", [0, 2_097_152, 15 * 10**12])
def test_a_row_has_what_the_config_and_the_clean_pass_say(tokens: int) -> None:
    table = training_table(CLEAN, model="m", training_tokens=tokens)
    (row,) = table.to_dicts()
    assert row == {
        "model": "m",
        "training_tokens": tokens,
        "mean_surprisal": 3.40829,
        "n_prompts": 160,
        "n_tokens": 160 * 127,
    }


def test_what_is_not_stated_is_null_and_models_stand_in_one_table() -> None:
    unknown = training_table(CLEAN, model="a", training_tokens=None)
    both = pl.concat([unknown, training_table(CLEAN, model="b", training_tokens=7)])
    assert both["training_tokens"].to_list() == [None, 7]
    assert dict(both.schema) == SCHEMA


def test_its_columns_are_documented() -> None:
    assert documented_columns("training") == set(SCHEMA)
