"""Prompts come back in their order, as integers, and reading them needs nothing that makes them."""

import subprocess
import sys

import polars as pl
import pytest
import torch

from selfrepair.text.prompts import read_prompts


def test_prompts_come_back_in_order(tmp_path):
    path = tmp_path / "prompts.parquet"
    tokens = [[7, 8, 9], [1, 2, 3], [4, 5, 6]]
    table = pl.DataFrame({"prompt": [2, 0, 1], "tokens": tokens, "donor": [1, 2, 0]})
    table.with_columns(bos_token=pl.lit(None, dtype=pl.Int32)).write_parquet(path)
    found = read_prompts(path)
    assert torch.equal(found.tokens, torch.arange(1, 10).view(3, 3))
    assert found.donors.tolist() == [2, 0, 1]
    assert found.bos_token is None
    assert found.first_position == 0


def test_the_position_of_a_beginning_of_sequence_token_is_not_selected(tmp_path):
    path = tmp_path / "prompts.parquet"
    table = {"prompt": [0, 1], "tokens": [[7, 8], [7, 9]], "donor": [1, 0], "bos_token": [7, 7]}
    pl.DataFrame(table).write_parquet(path)
    found = read_prompts(path)
    assert found.bos_token == 7
    assert found.first_position == 1


@pytest.mark.slow
def test_reading_prompts_imports_nothing_that_cleans_or_samples_text():
    """Or else a change there would mark every sweep as out of date."""
    program = "import sys, selfrepair.text.prompts as p; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = {name for name in done.stdout.split() if name.startswith("selfrepair")}
    assert loaded == {"selfrepair", "selfrepair.text", "selfrepair.text.prompts"}
