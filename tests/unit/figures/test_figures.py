"""What holds for every figure of the catalogue that is drawn from the tables of heads, by depth or of training."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from typing import Any

import altair as alt
import polars as pl
import pytest

from chosen_tables import compared_ablations
from figure_tables import depth_table, heads_table, training_tables
from selfrepair.catalogue import FIGURES, PUBLISHED

COMPARED = compared_ablations().with_columns(model=pl.lit("my-model"))
TABLES = {
    "heads": heads_table("my-model"),
    "depth": depth_table("my-model", "my-model-later"),
    "training": training_tables({"my-model": 0, "my-model-later": 10**9}),
    "compared_ablations": COMPARED.clear(),
}
DRAWN = [figure for figure in FIGURES if set(figure.tables) <= set(TABLES)]


def module_of(figure: Any) -> Any:
    return importlib.import_module(f"selfrepair.figures.{figure.module}")


@pytest.mark.parametrize("figure", DRAWN, ids=lambda figure: figure.key)
def test_figures_are_pure_and_readable(figure: Any) -> None:
    module, tables = module_of(figure), [TABLES[name] for name in figure.tables]
    before, options = [table.clone() for table in tables], alt.data_transformers.options.copy()
    spec = module.draw(*tables).to_dict()
    assert all(table.equals(old) for table, old in zip(tables, before, strict=True))
    assert alt.data_transformers.options == options
    assert spec == module.draw(*tables).to_dict()
    json.dumps(spec, allow_nan=False)
    assert spec["config"]["background"] == "white"
    sizes = [int(size) for size in re.findall(r'"\w*[fF]ontSize": (\d+)', json.dumps(spec))]
    assert len(sizes) >= 6
    assert min(sizes) >= 11


@pytest.mark.parametrize("figure", DRAWN, ids=lambda figure: figure.key)
def test_captions_name_model_ablation_and_sample(figure: Any) -> None:
    text = module_of(figure).caption(*(TABLES[name] for name in figure.tables))
    for words in ("my-model", "resample", "1,234 tokens", "321 prompts", "ablat", "direct effect"):
        assert words in text
    assert 2 <= len(re.findall(r"\.(?: |$)", text)) <= 5


@pytest.mark.parametrize(
    "figure", [f for f in DRAWN if f.tables == ("heads",)], ids=lambda f: f.key
)
def test_the_smallest_model_can_be_drawn(figure: Any) -> None:
    table = heads_table(layers=1, heads=1)
    assert module_of(figure).draw(table).to_dict()["title"]["text"]
    assert re.search(r"1 in all|of 1 on", module_of(figure).caption(table))


@pytest.mark.parametrize(
    "figure", [f for f in DRAWN if f.tables == ("heads",)], ids=lambda f: f.key
)
@pytest.mark.parametrize("column", ["model", "selection", "direct_effect_low", "n_tokens"])
def test_a_missing_column_is_named(figure: Any, column: str) -> None:
    for function in (module_of(figure).draw, module_of(figure).caption):
        with pytest.raises(ValueError, match=f"^{figure.key}: .*no column {column};[^\n]*$"):
            function(heads_table().drop(column))


@pytest.mark.parametrize("figure", [*FIGURES, PUBLISHED], ids=lambda figure: figure.key)
def test_every_figure_of_the_catalogue_has_its_module(figure: Any) -> None:
    assert callable(module_of(figure).draw)
    assert callable(module_of(figure).caption)


def test_drawing_loads_no_torch() -> None:
    names = ", ".join(f"selfrepair.figures.{figure.module}" for figure in (*FIGURES, PUBLISHED))
    code = f"import sys, {names}, selfrepair.figures.saving; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
