"""Prompts come back in their order, as integers, and reading them needs nothing that makes them."""

import subprocess
import sys

import polars as pl
import torch

from selfrepair.text.prompts import read_prompts


def test_prompts_come_back_in_order(tmp_path):
    path = tmp_path / "prompts.parquet"
    tokens = [[7, 8, 9], [1, 2, 3], [4, 5, 6]]
    table = pl.DataFrame({"prompt": [2, 0, 1], "tokens": tokens, "donor": [1, 2, 0]})
    table.write_parquet(path)
    found, donors = read_prompts(path)
    assert torch.equal(found, torch.arange(1, 10).view(3, 3))
    assert donors.tolist() == [2, 0, 1]


def test_reading_prompts_imports_nothing_that_cleans_or_samples_text():
    """Or else a change there would mark every sweep as out of date."""
    program = "import sys, selfrepair.text.prompts as p; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = {name for name in done.stdout.split() if name.startswith("selfrepair")}
    assert loaded == {"selfrepair", "selfrepair.text", "selfrepair.text.prompts"}
