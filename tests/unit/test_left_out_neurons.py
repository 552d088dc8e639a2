"""The scripts of a model without neurons (a mixture of experts): files are there and say so."""

import json
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
import torch

from selfrepair.catalogue import EXPERIMENTS, FIGURES
from selfrepair.files.storage import write_json, write_tensors
from selfrepair.tables.summaries import summary_table
from selfrepair.vocabulary import NO_NEURONS

SCRIPTS = Path(__file__).parents[2] / "workflow/scripts"
(NEURONS,) = (each for each in EXPERIMENTS if each.name == "neurons")
CLEAN = {
    "model_commit": None,
    "architecture": "MixtralForCausalLM",
    "dtype": "float32",
    "logit_softcap": None,
    "logit_scale": 1.0,
    "weights": None,
    "bos_token": None,
    "neuron_layers": [True, False],
    "notes": ["It is odd."],
}


class Files(dict):
    """Named files of a job, also as attributes and by number."""

    def __getattr__(self, name):
        return self[name]

    def __getitem__(self, key):
        return [*self.values()][key] if isinstance(key, int) else super().__getitem__(key)


def job(folder, script, *, inputs, outputs, settings=None, **params):
    """Run a rule's script as Snakemake does."""
    config = {
        "study": "s",
        "seed": 0,
        "device": "cpu",
        "cache": "cache",
        "memory": {"prompts_at_once": 2, "rows_at_once": None},
        "models": {"moe": {}},
    }
    snakemake = SimpleNamespace(
        input=Files(inputs),
        output=Files(outputs),
        log=[str(folder / f"{script}.log")],
        wildcards=Files(model="moe"),
        params=SimpleNamespace(settings=settings, **params),
        config=config,
        threads=1,
    )
    runpy.run_path(str(SCRIPTS / f"{script}.py"), init_globals={"snakemake": snakemake})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two shards of the neuron experiment, gathered and tabulated."""
    folder = tmp_path_factory.mktemp("moe")
    sys.path.insert(0, str(SCRIPTS))
    top = {"top_token": torch.zeros(2, 1, 1, dtype=torch.int32)}
    write_tensors(folder / "clean.safetensors", top, CLEAN)
    chosen = {"heads": [[0, 0], [1, 0]], "last_layer_heads": [[1, 0]], "mlps": [1]}
    write_json(folder / "chosen-heads.json", chosen)
    shards = [folder / f"neurons/shard-{n}of2.safetensors" for n in (0, 1)]
    for n, shard in enumerate(shards):
        inputs = {"clean": folder / "clean.safetensors", "heads": folder / "chosen-heads.json"}
        outputs = {"tensors": shard}
        settings = {"tf32": False}
        prompts = range(2 * n, 2 * n + 2)
        job(
            folder,
            "measure_neurons",
            inputs=inputs,
            outputs=outputs,
            settings=settings,
            prompts=prompts,
        )
    job(
        folder,
        "gather",
        inputs={"shards": shards},
        outputs={"index": folder / "neurons.json"},
        settings={},
    )
    tables = {name: folder / f"{name}.parquet" for name in NEURONS.tables}
    settings = {"models.{model}.title": "Toy", "seed": 0, "statistics.resamples": 5}
    inputs = {"index": folder / "neurons.json"}
    job(folder, "tabulate_neurons", inputs=inputs, outputs=tables, settings=settings)
    return folder


def test_the_shards_say_that_nothing_was_measured_and_why(folder):
    index = json.loads((folder / "neurons.json").read_text())
    assert index["not_measured"] == NO_NEURONS
    assert index["prompts"] == 4
    assert index["heads"]["mlps"] == [1]


def test_the_tables_are_there_and_empty(folder):
    for name in NEURONS.tables:
        table = pl.read_parquet(folder / f"{name}.parquet")
        assert table.is_empty()
        assert table.width > 8
    summaries = pl.read_parquet(folder / "neuron_summaries.parquet")
    assert summaries.schema == summary_table([]).schema  # joined with those of other models


@pytest.mark.parametrize("key", ["E7", "E9"])
def test_the_figures_are_there_and_say_so(folder, key):
    (figure,) = (each for each in FIGURES if each.key == key)
    inputs = {name: [folder / f"{name}.parquet"] for name in figure.tables}
    inputs |= {"notes": [folder / "clean.json"], "vega": folder / "vega.js", "code": []}
    outputs = {"png": folder / f"{key}.png"}
    formats = ["html", "svg", "png"]
    settings = {"models.{model}.weights": "made up", "figures.formats": formats}
    params = {"module": figure.module, "tables": figure.tables, "settings": settings}
    job(folder, "draw", inputs=inputs, outputs=outputs, **params)
    caption = (
        (folder / f"{key}.html").read_text().split("<figcaption>")[1].split("</figcaption>")[0]
    )
    assert caption == f"Not measured: {NO_NEURONS}. It is odd. Weights of this model: made up."
    svg = (folder / f"{key}.svg").read_text()
    assert ">Not measured</text>" in svg
    assert "It is odd." in svg
