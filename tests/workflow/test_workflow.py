"""The workflow as its users meet it: complete, incremental, and clear about mistakes."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import selfrepair
from selfrepair.claims.claims import CLAIMS
from selfrepair.files.shards import read_sweep
from selfrepair.text.prompts import read_prompts

FIGURES = ["E1-self-repair-by-depth", "E5-norm-share-by-depth", "E12-breakdown-across-models"]
MODEL_FIGURES = [
    "E2-effect-against-change",
    "E3-effect-against-change-by-token",
    "E4-norm-scale-ratio",
    "E6-breakdown-by-head",
    "E7-most-repairing-neurons",
    "E8-cumulative-change-of-neurons",
    "E9-effect-of-the-top-neuron",
    "E10-neurons-among-the-top-10",
    "E11a-self-repression",
    "E11b-refeeding-against-ablation",
    "published-against-measured",
]
ABLATE = {"ablate_resample", "ablate_zero"}
MEASURE = {"ablate_chosen", "measure_neurons", "measure_iterative"}
TABULATE = {"tabulate_tokens", "tabulate_neurons", "tabulate_iterative"}
DRAW_HEADS = {"draw_E1", "draw_E2", "draw_E5", "draw_E6"}
DRAW_EXPERIMENTS = {"draw_E3", "draw_E4", *(f"draw_E{n}" for n in (7, 8, 9, 10, "11a", "11b"))}
# Everything that follows the table of heads.
OF_HEADS = DRAW_HEADS | {"draw_E12", "draw_published", "compare_published", "summarise", "claims"}
DRAW = DRAW_HEADS | DRAW_EXPERIMENTS | {"draw_E12", "draw_published"}


def test_everything_promised_is_there(finished):
    results, figures = finished.folder / "results/tiny", finished.folder / "figures/tiny"
    heads = pl.read_parquet(results / "gpt2/heads.parquet")
    assert heads.height == 2 * 2 * 3 * 3
    assert set(heads["model"]) == {"Tiny GPT-2"}
    stems = [figures / name for name in FIGURES] + [figures / "gpt2" / n for n in MODEL_FIGURES]
    for stem in stems:
        for ending in ("html", "svg", "png", "pdf"):
            assert stem.with_suffix(f".{ending}").stat().st_size > 1000
    assert "| Tiny GPT-2 |" in (results / "findings.md").read_text()
    claims = pl.read_parquet(results / "claims.parquet")
    assert claims.height == len(CLAIMS)
    # With one top token per head there are no two instances to compare.
    assert claims.filter(pl.col("value").is_null())["id"].to_list() == ["neurons_differ"]
    page = (results / "claims.html").read_text()
    for name in re.findall(r'src="([^"]+)"', page):
        assert (results / name).is_file(), name
    metrics = json.loads((results / "claims.json").read_text())["Tiny GPT-2"]
    assert set(metrics) == {claim.id for claim in CLAIMS}
    assert "correlation" in json.loads((results / "gpt2/published.json").read_text())["delta_logit"]
    assert "| Tiny GPT-2 |" in finished.told
    assert "Figures: figures/tiny/" in finished.told


def test_provenance_tells_how_a_result_was_made(finished):
    sidecar = finished.folder / "results/tiny/gpt2/sweeps/resample/shard-0of2.json"
    provenance = json.loads(sidecar.read_text())
    assert provenance["prompts"] == [0, 4]
    assert provenance["seed"] == 0
    stated = finished.config["models"]["gpt2"]
    assert provenance["config"]["models"] == {"gpt2": stated | {"resources": {}}}
    assert provenance["versions"]["torch"] == torch.__version__
    assert 0 < provenance["decomposition_error"] < 1e-3
    assert provenance["wall_seconds"] > 0
    assert provenance["device"]


def test_results_are_those_of_the_library(finished):
    results = finished.folder / "results/tiny/gpt2"
    tokens, donors = read_prompts(results / "prompts.parquet")
    model = selfrepair.load_model(finished.config["models"]["gpt2"]["name"])
    expected = selfrepair.sweep(model, tokens, donors=tokens[donors])
    measured = read_sweep(results / "sweeps/resample.json")
    for name, values in expected.arrays().items():
        assert torch.allclose(measured[name], values, atol=1e-5), name


def test_results_do_not_depend_on_shards_batches_or_chunks(finished, copy_of_finished):
    """Other shards (one for two, two for one), batches and chunks: the same tables up to rounding."""
    sizes = {"prompts_at_once": 2, "rows_at_once": 5}
    experiments = copy_of_finished.config["experiments"] | {"prompts_per_shard": 4}
    tables = ("tokens", "neuron_ranks", "top_neurons", "self_repression", "refeeding", "heads")
    targets = [f"results/tiny/gpt2/{name}.parquet" for name in tables]
    sweep = {"prompts_per_shard": 6}
    done = copy_of_finished.snakemake(*targets, sweep=sweep, memory=sizes, experiments=experiments)
    assert done.returncode == 0, done.stderr
    for target in targets:
        before, after = (pl.read_parquet(c.folder / target) for c in (finished, copy_of_finished))
        numbers = before.select(pl.selectors.float()).columns
        assert before.drop(numbers).equals(after.drop(numbers)), target
        for name in numbers:
            assert np.allclose(before[name], after[name], rtol=2e-3, atol=1e-4, equal_nan=True), (
                target,
                name,
            )


def test_top_tokens_alone_give_the_same_means(finished, copy_of_finished):
    """Less is run, and what is not is missing everywhere: no rows, no panel, no invented zero."""
    figures = (  # all that are drawn from the means of sweeps
        "E1-self-repair-by-depth",
        "gpt2/E2-effect-against-change",
        "E5-norm-share-by-depth",
        "gpt2/E6-breakdown-by-head",
        "E12-breakdown-across-models",
    )
    done = copy_of_finished.snakemake(
        "results/tiny/claims.parquet",
        *(f"figures/tiny/{figure}.png" for figure in figures),
        sweep=copy_of_finished.config["sweep"] | {"tokens": "top"},
    )
    assert done.returncode == 0, done.stderr
    whole, top = (
        pl.read_parquet(c.folder / "results/tiny/gpt2/heads.parquet")
        for c in (finished, copy_of_finished)
    )
    assert set(top["selection"]) == {"top"}
    whole = whole.filter(selection="top")
    numbers = whole.select(pl.selectors.float()).columns
    assert whole.drop(numbers).equals(top.drop(numbers))
    for name in numbers:
        assert np.allclose(whole[name], top[name], rtol=2e-3, atol=1e-4, equal_nan=True), name
    shard = copy_of_finished.folder / "results/tiny/gpt2/sweeps/resample/shard-0of2.json"
    assert json.loads(shard.read_text())["tokens"] == "top"
    claims, before = (
        pl.read_parquet(c.folder / "results/tiny/claims.parquet")
        for c in (copy_of_finished, finished)
    )
    assert claims["verdict"].equals(before["verdict"])


def test_a_cheaper_number_format_is_compared_with_float32(copy_of_finished):
    done = copy_of_finished.snakemake(
        "results/tiny/gpt2/heads.parquet",
        "results/tiny/gpt2/experiments/neurons.json",
        dtype="bfloat16",
        sweep={"prompts_per_shard": 6},
    )
    assert done.returncode == 0, done.stderr
    folder = copy_of_finished.folder / "results/tiny/gpt2"
    measured = json.loads((folder / "precision.json").read_text())
    assert measured["dtype"] == "bfloat16"
    repair = measured["differences_from_float32"]["self_repair"]
    assert 1e-4 < repair["mean"] < repair["largest"] < 1
    for path in ("sweeps/zero/shard-0of1.json", "experiments/neurons/shard-0of1.json"):
        provenance = json.loads((folder / path).read_text())
        assert provenance["dtype"] == "bfloat16"
        assert provenance["precision_error"] == repair["largest"]
    assert json.loads((folder / "heads.json").read_text())["precision_error"] == repair["largest"]


def test_a_dry_run_shows_what_the_study_costs(finished):
    done = finished.snakemake("-n", plan={"hardware": "a test", "tflops": 0.5})
    table = done.stderr[done.stderr.index("Plan of study tiny") :].splitlines()
    assert "0.5 TFLOP/s of a test" in table[0]
    assert table[2].split()[:2] == ["Tiny", "GPT-2"]
    assert "Plan of study" not in finished.told


def test_a_shape_that_the_model_has_not_is_refused(copy_of_finished):
    model = copy_of_finished.config["models"]["gpt2"]
    shape = {"layers": 3, "heads": 3, "d_model": 24, "d_mlp": 97, "vocabulary": 61}
    done = copy_of_finished.snakemake(
        "clean@gpt2", "--forcerun", "clean_pass", models={"gpt2": model | {"shape": shape}}
    )
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "models.gpt2.shape.d_mlp: 97, but the model has 96" in last


def test_a_second_run_has_nothing_to_do_and_says_so(finished):
    done = finished.snakemake()
    assert done.returncode == 0
    assert "Nothing to be done" in done.stdout + done.stderr


def test_a_config_value_re_runs_what_depends_on_it(finished):
    every = {"decompose"} | TABULATE | OF_HEADS | DRAW
    assert finished.planned(statistics={"resamples": 1500}) == every
    more = {"resample": {"prompts": 6}, "zero": {"prompts": 6}}
    planned = finished.planned(ablations=more)
    assert {"ablate_zero", "gather", "decompose"} <= planned
    done = {"sample_documents", "cut_prompts", "clean_pass", "ablate_resample"}
    assert not planned & (done | MEASURE)
    fewer = finished.config["experiments"] | {"tokens_per_head": 1}
    planned = finished.planned(experiments=fewer)
    assert {"measure_iterative", "tabulate_iterative", "draw_E11a", "claims"} <= planned
    assert not planned & (done | ABLATE | {"measure_neurons", "ablate_chosen", "decompose"})


@pytest.mark.parametrize(
    ("module", "re_run", "left_alone"),
    [
        ("figures", DRAW, {*ABLATE, *MEASURE, *TABULATE, "clean_pass", "decompose", "claims"}),
        ("statistics", {"decompose", *TABULATE} | OF_HEADS, {*ABLATE, *MEASURE, "gather"}),
        ("neuron_tables", {"tabulate_neurons", "draw_E9"}, {*ABLATE, *MEASURE, "decompose"}),
        ("neurons", {"measure_neurons"}, {*ABLATE, "measure_iterative", "clean_pass"}),
        ("replay", {*ABLATE, *MEASURE, "clean_pass"}, {"sample_documents"}),
        ("corpus", {"sample_documents", "cut_prompts", *ABLATE}, set()),
    ],
)
def test_editing_a_module_re_runs_its_rules_and_what_follows(
    copy_of_finished, module, re_run, left_alone
):
    path = copy_of_finished.folder / f"workflow/selfrepair/{module}.py"
    path.write_text(path.read_text() + "\n# A change.\n")
    planned = copy_of_finished.planned()
    assert re_run <= planned
    assert not left_alone & planned


def test_deleting_a_figure_makes_only_that_figure(copy_of_finished):
    figure = copy_of_finished.folder / "figures/tiny/E1-self-repair-by-depth.png"
    figure.unlink()
    assert copy_of_finished.planned() == {"draw_E1"}


def test_a_damaged_shard_is_refused_by_name_and_rebuilt_once_deleted(copy_of_finished):
    shard = copy_of_finished.folder / "results/tiny/gpt2/sweeps/resample/shard-1of2.safetensors"
    good = shard.read_bytes()
    shard.write_bytes(good[:-8] + b"\x00" * 8)
    done = copy_of_finished.snakemake()
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(
        "error: results/tiny/gpt2/sweeps/resample/shard-1of2.safetensors: content"
    )
    shard.unlink()
    shard.with_suffix(".json").unlink()
    done = copy_of_finished.snakemake("results/tiny/gpt2/sweeps/resample.json")
    assert done.returncode == 0, done.stderr
    assert shard.read_bytes() == good


def test_the_workflow_reads_modules_only_from_the_checkout(finished):
    """So that the tests above test these files, whatever is installed."""
    assert Path(selfrepair.__file__).name == "__init__.py"
    done = finished.snakemake("--list-rules")
    assert "sample_documents" in done.stdout


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"sed": 1}, r"config: unknown key sed; known keys are ablations, cache, device"),
        ({"seed": -1}, r"seed: -1 is less than the minimum of 0"),
        ({"models": {"x": {"name": "/nowhere/at/all"}}}, r"/nowhere/at/all is no Hugging Face"),
    ],
)
def test_a_wrong_config_is_one_line_before_any_job(fresh, changes, line):
    done = fresh().snakemake(**changes)
    assert done.returncode == 1
    errors = [row for row in done.stderr.splitlines() if row.startswith("error: ")]
    assert len(errors) == 1
    assert re.search(line, errors[0])
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("study: x\nsed: 1\n", "config: needs the key models|unknown key sed"),
        ("study: [", "while parsing"),
        (None, "No such file"),
    ],
)
def test_fetching_tells_what_is_wrong_in_one_line(fresh, text, line):
    folder = fresh().folder
    config = folder / "config/mine.yaml"
    if text is not None:
        config.write_text(text)
    command = [sys.executable, "workflow/scripts/fetch.py", str(config)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert re.search(line, done.stderr)


def without_tokenizer(config, folder):
    model = folder / "no_tokenizer"
    shutil.copytree(config["models"]["gpt2"]["name"], model)
    for path in model.glob("tokenizer*"):
        path.unlink()
    return {"models": {"gpt2": {"name": str(model)}}}, "no tokenizer found"


def too_many_prompts(config, folder):
    return {
        "text": config["text"] | {"prompts": 900}
    }, "text.prompts: source words is asked for 900"


def too_long_prompts(config, folder):
    text = config["text"] | {"tokens_per_prompt": 4000}
    return {"text": text}, "text.sources.words: none of its 9 documents has 4000 tokens"


@pytest.mark.parametrize("mistake", [without_tokenizer, too_many_prompts, too_long_prompts])
def test_what_only_a_job_can_see_is_still_told_in_one_last_line(fresh, tmp_path, mistake):
    checkout = fresh()
    changes, line = mistake(checkout.config, tmp_path)
    done = checkout.snakemake(**changes)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert line in last
    assert not (checkout.folder / "results/tiny/gpt2/clean.safetensors").exists()
