"""The workflow as its users meet it: complete, incremental, and clear about mistakes."""

import html
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from safetensors.torch import load_file

import selfrepair
from checkouts import ROOT, Checkout, run_in
from gguf_files import tiny_model, write_gguf
from selfrepair import catalogue
from selfrepair.claims.claims import CLAIMS
from selfrepair.files.shards import read_instances
from selfrepair.files.storage import write_tensors
from selfrepair.other_ablations import COMPARED
from selfrepair.text.prompts import read_prompts
from selfrepair.vocabulary import EFFECTS
from tiny_models import naming_tokenizer
from top_masks import top_of_every_head

sys.path.insert(0, str(ROOT / "workflow/scripts"))

from common.rule_code import code_of

FIGURES = [*catalogue.FIGURES, catalogue.PUBLISHED]
ABLATE = {"ablate_resample", "ablate_zero"}
MEASURE = {experiment.measure for experiment in catalogue.EXPERIMENTS}
# Pairs are chosen by the table of the repair map.
WITHOUT_PAIRS = MEASURE - {"ablate_pairs"}
TABULATE = {experiment.tabulate for experiment in catalogue.EXPERIMENTS}
DRAW = {f"draw_{figure.key}" for figure in FIGURES}
# Everything that follows the table of heads and the one by depth.
OF_HEADS = {f"draw_{f.key}" for f in FIGURES if {"heads", "depth", "published"} & {*f.tables}}
OF_HEADS |= {"compare_published", "summarise", "judge_claims"}
# Figures that are drawn from the means of sweeps.
OF_MEANS = (
    "E1-self-repair-by-depth",
    "gpt2/E2-effect-against-change",
    "E5-norm-share-by-depth",
    "gpt2/E6-breakdown-by-head",
    "E12-breakdown-across-models",
)


def test_everything_promised_is_there(finished):
    results, figures = finished.folder / "results/tiny", finished.folder / "figures/tiny"
    heads = pl.read_parquet(results / "gpt2/heads.parquet")
    assert heads.height == 2 * 2 * 3 * 3
    assert set(heads["model"]) == {"Tiny GPT-2"}
    for figure in FIGURES:
        folder = figures if figure.scope == "study" else figures / "gpt2"
        stem = folder / f"{figure.key}-{figure.name}"
        for ending in ("html", "svg", "png", "pdf"):
            assert stem.with_suffix(f".{ending}").stat().st_size > 1000
    assert "| Tiny GPT-2 |" in (results / "findings.md").read_text()
    claims = pl.read_parquet(results / "claims.parquet")
    assert claims.height == len(CLAIMS)
    # In a tiny model with random weights no head may back up another, and its tokenizer knows no names; the study
    # trains no constants.
    may_lack = ["backups_are_true", "narrow_repair_is_that_of_text"]
    may_lack += ["repair_is_no_artefact", "any_change_is_made_up_for", "repair_is_of_the_head"]
    assert claims.filter(~pl.col("id").is_in(may_lack))["value"].null_count() == 0
    page = (results / "claims.html").read_text()
    for name in re.findall(r'src="([^"]+)"', page):
        assert (results / name).is_file(), name
    metrics = json.loads((results / "claims.json").read_text())["Tiny GPT-2"]
    assert set(metrics) == {claim.id for claim in CLAIMS}
    assert "correlation" in json.loads((results / "gpt2/published.json").read_text())["delta_logit"]
    assert "| Tiny GPT-2 |" in finished.told
    agreement = json.loads((results / "gpt2/agreement.json").read_text())
    assert agreement["checked"] is True
    assert max(agreement["largest_difference"].values()) < 1e-4
    checked = f"Checked against the plain model on the CPU: {agreement['instances']} instances"
    assert checked in (results / "findings.md").read_text()
    assert checked in page
    assert "Figures: figures/tiny/" in finished.told


def test_a_tokenizer_without_names_leaves_the_narrow_task_out(finished):
    results = finished.folder / "results/tiny/gpt2"
    assert pl.read_parquet(results / "narrow_prompts.parquet").is_empty()
    assert pl.read_parquet(results / "narrow_heads.parquet").is_empty()
    log = (finished.folder / "logs/tiny/gpt2/write_narrow_prompts.log").read_text()
    assert "0 of 38 names are a single token of this tokenizer" in log
    figure = finished.folder / "figures/tiny/gpt2/E18-narrow-against-full.html"
    assert "Not measured" in figure.read_text()


def test_the_narrow_task_is_measured_or_left_out(copy_of_finished, tmp_path):
    named = tmp_path / "named"
    shutil.copytree(copy_of_finished.config["models"]["gpt2"]["name"], named)
    naming_tokenizer().save_pretrained(named)
    models = {"gpt2": {"title": "Tiny GPT-2", "name": str(named)}}
    experiments = copy_of_finished.config["experiments"] | {"narrow_prompts": 22}
    target = "results/tiny/gpt2/narrow_summaries.parquet"
    done = copy_of_finished.snakemake(target, models=models, experiments=experiments)
    assert done.returncode == 0, done.stderr
    results = copy_of_finished.folder / "results/tiny/gpt2"
    prompts = pl.read_parquet(results / "narrow_prompts.parquet")
    assert prompts.height == 22
    assert prompts["tokens"].list.first().unique().to_list() == [1]  # bos: always
    heads = pl.read_parquet(results / "narrow_heads.parquet")
    assert heads.height == 3 * 3
    assert heads["n_prompts"].unique().to_list() == [22]
    summaries = pl.read_parquet(results / "narrow_summaries.parquet")
    assert {"accuracy", "self_repair_correlation"} <= {*summaries["quantity"]}
    shards = sorted((results / "experiments/narrow").glob("shard-*.safetensors"))
    assert [len(load_file(path)["answer_logit"]) for path in shards] == [20, 2]
    sidecar = json.loads(shards[1].with_suffix(".json").read_text())
    assert sidecar["prompts"] == [20, 22]
    assert 0 < sidecar["rounding_error"] < 0.01
    none = copy_of_finished.config["experiments"] | {"narrow_prompts": 0}
    done = copy_of_finished.snakemake(target, experiments=none)
    assert done.returncode == 0, done.stderr
    assert pl.read_parquet(results / "narrow_summaries.parquet").is_empty()
    assert json.loads((results / "experiments/narrow.json").read_text())["files"] == []


def test_constants_are_trained_on_prompts_that_nothing_is_ablated_on(copy_of_finished):
    """Of 24 prompts the first 12 are ablated, the last 4 are for pairs; the 8 between are left."""
    config = copy_of_finished.config
    fewer = {"prompts": 12, "iterative_prompts": 4, "pair_prompts": 4, "optimal_prompts": 8}
    fewer |= {"optimal_steps": 12, "optimal_heads": [[2, 0], [1, 1]], "prompts_per_shard": 7}
    changes = {
        "experiments": config["experiments"] | fewer,
        "ablations": {
            name: ablation | {"prompts": 12} for name, ablation in config["ablations"].items()
        },
    }
    results = copy_of_finished.folder / "results/tiny/gpt2"
    target = "results/tiny/gpt2/compared_ablations.parquet"
    done = copy_of_finished.snakemake(target, **changes)
    assert done.returncode == 0, done.stderr
    made = json.loads((results / "constants.json").read_text())
    assert made["prompts"] == [12, 20]
    assert made["heads"] == [[2, 0], [1, 1]]
    constants = load_file(results / "constants.safetensors")
    assert (constants["loss"] <= constants["start_loss"]).all()
    assert not (results / "constants.unfinished").exists()
    table = pl.read_parquet(results / "compared_ablations.parquet")
    assert {*table["ablation"]} == {*COMPARED}
    assert {*table.select("layer", "head").rows()} <= {(2, 0), (1, 1)}
    shards = sorted((results / "experiments/compared").glob("shard-*of2.json"))
    assert [json.loads(path.read_text())["prompts"] for path in shards] == [[0, 7], [7, 12]]
    more = fewer | {"optimal_prompts": 9}
    refused = copy_of_finished.snakemake(
        target, **(changes | {"experiments": config["experiments"] | more})
    )
    assert refused.returncode == 1
    assert "experiments.optimal_prompts: 9; of 24 prompts" in refused.stderr
    none = config["experiments"] | fewer | {"optimal_prompts": 0}
    done = copy_of_finished.snakemake(target, **(changes | {"experiments": none}))
    assert done.returncode == 0, done.stderr
    assert pl.read_parquet(results / "compared_ablations.parquet").is_empty()


def test_only_what_matters_is_told_and_the_findings_last(finished):
    lines = finished.told.strip().splitlines()
    assert lines[-1].startswith("Claims: results/tiny/claims.html")
    assert not [line for line in lines if "Select jobs" in line or "\x1b" in line]
    of_clean = [line.split("] ")[1] for line in lines if "clean pass 1/2 of gpt2" in line]
    assert of_clean[0] == "clean pass 1/2 of gpt2 has started"
    assert of_clean[-1].startswith("clean pass 1/2 of gpt2 took ")


def test_provenance_tells_how_a_result_was_made(finished):
    sidecar = finished.folder / "results/tiny/gpt2/sweeps/resample/shard-0of2.json"
    provenance = json.loads(sidecar.read_text())
    assert provenance["prompts"] == [0, 12]
    assert (provenance["tokens"], provenance["mapped"]) == ("sampled", True)
    assert provenance["seed"] == 0
    assert provenance["bos_token"] == 1
    stated = finished.config["models"]["gpt2"]
    assert provenance["config"]["models"] == {"gpt2": stated | {"resources": {}}}
    assert provenance["versions"]["torch"] == torch.__version__
    assert 0 < provenance["decomposition_error"] < 1e-3
    assert 0 < provenance["map_error"] < 1e-3
    assert provenance["wall_seconds"] > 0
    assert provenance["device"]


def test_results_are_those_of_the_library(finished):
    """Each drawn token's, from a sweep of all tokens; and the top tokens from all direct effects."""
    results = finished.folder / "results/tiny/gpt2"
    prompts = read_prompts(results / "prompts.parquet")
    tokens = prompts.tokens
    model = selfrepair.load_model(finished.config["models"]["gpt2"]["name"])
    expected = selfrepair.sweep(model, tokens, donors=tokens[prompts.donors])
    measured = read_instances(results / "sweeps/resample.json")
    at = [measured[name].long() for name in ("prompt", "position", "layer", "head")]
    for name in EFFECTS:
        if name != "from_post_norms":
            found = getattr(expected, name)[tuple(at)]
            assert torch.allclose(measured[name], found, atol=1e-5), name
    top = top_of_every_head(expected.direct_effect, first_position=1)
    ranked = load_file(results / "clean.safetensors")["top_token"]
    assert ranked.shape == (3, 3, 6)
    for layer, head in product(range(3), repeat=2):
        places = top[:, :, layer, head].flatten().nonzero().flatten()
        assert ranked[layer, head].sort().values.tolist() == places.tolist()
    assert bool(top[tuple(at)][measured["top"].bool()].all())


def test_drawn_tokens_are_what_the_config_asks_for_and_what_was_measured(finished):
    results = finished.folder / "results/tiny/gpt2"
    for ablation, top, random, prompts in (("resample", 4, 6, 20), ("zero", 2, 3, 12)):
        drawn = pl.read_parquet(results / f"drawn/{ablation}.parquet")
        assert drawn["prompt"].max() < prompts
        counts = drawn.group_by("layer", "head").agg(pl.col("top", "random").sum())
        assert counts.height == 9
        assert counts["top"].max() == top
        assert set(counts["random"]) == {random}
        measured = read_instances(results / f"sweeps/{ablation}.json")
        for name in ("prompt", "position", "layer", "head", "top", "random"):
            assert drawn[name].cast(pl.Int64).to_list() == measured[name].tolist(), name


def test_a_sweep_of_some_heads_measures_of_them_what_a_whole_one_does(finished, copy_of_finished):
    """Layers 1 and 2 of three: the same tokens of the same heads, whatever else is swept."""
    changes = {
        "sweep": {"heads": "second_half", "prompts_per_shard": 20},
        "ablations": {"resample": finished.config["ablations"]["resample"]},
    }
    figure = "figures/tiny/E1-self-repair-by-depth"
    targets = ("results/tiny/gpt2/heads.parquet", f"{figure}.png", "results/tiny/findings.md")
    done = copy_of_finished.snakemake(*targets, **changes)
    assert done.returncode == 0, done.stderr
    for target in targets:
        assert (copy_of_finished.folder / target).exists()
    whole, some = (
        pl.read_parquet(checkout.folder / targets[0]).filter(ablation="resample")
        for checkout in (finished, copy_of_finished)
    )
    assert some.filter(pl.col("n_tokens").is_not_null())["layer"].unique().to_list() == [1, 2]
    expected, found = (table.filter(pl.col("layer") > 0) for table in (whole, some))
    numbers = pl.selectors.float()
    assert found.select(~numbers).equals(expected.select(~numbers))
    # One shard in place of two, which may round otherwise in float32; measured: the same.
    np.testing.assert_allclose(
        found.select(numbers).to_numpy(), expected.select(numbers).to_numpy(), atol=1e-5, rtol=1e-4
    )
    drawn = pl.read_parquet(copy_of_finished.folder / "results/tiny/gpt2/swept/resample.parquet")
    assert drawn["layer"].unique().to_list() == [1, 2]
    assert "(6 of 9)" in (copy_of_finished.folder / f"{figure}.html").read_text()
    findings = (copy_of_finished.folder / targets[2]).read_text()
    assert "The sweeps ablated 6 of 9 heads, those of the second half of the layers" in findings


def test_a_beginning_of_sequence_token_is_in_every_prompt_and_never_selected(finished):
    results = finished.folder / "results/tiny/gpt2"
    prompts = pl.read_parquet(results / "prompts.parquet")
    assert set(prompts["bos_token"]) == {1}
    assert {tokens[0] for tokens in prompts["tokens"]} == {1}
    assert {len(tokens) for tokens in prompts["tokens"]} == {16}
    counts = pl.read_parquet(results / "heads.parquet").group_by("ablation", "selection")
    found = {(a, s): n for a, s, n in counts.agg(pl.col("n_tokens").max()).iter_rows()}
    every = {("resample", "all"): 6, ("zero", "all"): 3}
    assert found == {**every, ("resample", "top"): 4, ("zero", "top"): 2}
    assert pl.read_parquet(results / "drawn/resample.parquet")["position"].min() >= 1
    for name in ("tokens", "scale_ratios", "top_neurons"):
        assert pl.read_parquet(results / f"{name}.parquet")["position"].min() >= 1
    pairs = pl.read_parquet(results / "iterative_summaries.parquet").filter(group="all")
    pooled = pairs.filter(pl.col("layer").is_null())["n_tokens"]
    # Pairs of layers, ablated heads, 14 of 15 positions of the prompts.
    assert pooled.to_list() == [2 * 3 * 14 * 12]
    clean = json.loads((results / "clean.json").read_text())
    assert clean["bos_trial"]["prompts"] == 8
    assert clean["bos_trial"]["with_bos_nats"] != clean["bos_trial"]["without_bos_nats"]
    assert clean["warnings"] == []  # too few prompts to be sure


def test_results_do_not_depend_on_shards_batches_or_chunks(finished, copy_of_finished):
    """Other shards (one for two, two for one), batches and chunks: the same tables up to rounding."""
    changes = {
        "clean": copy_of_finished.config["clean"] | {"prompts_per_shard": 7},
        "sweep": {"prompts_per_shard": 20},
        "memory": {"prompts_at_once": 2, "rows_at_once": 5},
        "experiments": copy_of_finished.config["experiments"] | {"prompts_per_shard": 9},
    }
    tables = ("tokens", "neuron_ranks", "top_neurons", "self_repression", "refeeding", "heads")
    tables += ("repair_map", "repair_layers", "backup_heads")
    targets = [f"results/tiny/gpt2/{name}.parquet" for name in tables]
    done = copy_of_finished.snakemake(*targets, **changes)
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


def test_every_token_drawn_gives_the_tables_of_all_tokens(finished, tmp_path):
    """Two ways to the same numbers: sums of each prompt and head, and every token an instance."""
    found = {}
    for tokens in ("all", "sampled"):
        checkout = finished.copy(tmp_path / tokens)
        asked = {"prompts": 24, "tokens_per_head": None, "random_tokens_per_head": 10**6}
        done = checkout.snakemake(
            "results/tiny/claims.parquet",
            "figures/tiny/gpt2/E13-repair-map.png",
            *(f"figures/tiny/{figure}.png" for figure in OF_MEANS),
            sweep={"tokens": tokens, "prompts_per_shard": 12},
            ablations={"resample": asked, "zero": asked},
        )
        assert done.returncode == 0, done.stderr
        folder = checkout.folder / "results/tiny"
        shard = json.loads((folder / "gpt2/sweeps/resample/shard-0of2.json").read_text())
        assert shard["tokens"] == tokens
        found[tokens] = {
            name: pl.read_parquet(folder / f"{name}.parquet")
            for name in ("gpt2/heads", "gpt2/depth", "claims")
        }
        assert pl.read_parquet(folder / "gpt2/repair_map.parquet").height == 0
    for name, table in found["all"].items():
        other = found["sampled"][name]
        numbers = table.select(pl.selectors.float()).columns
        # Prompts with a drawn token are counted; of a sweep of all tokens, all prompts.
        same = [c for c in table.columns if c not in (*numbers, "n_prompts")]
        assert table.select(same).equals(other.select(same)), name
        for column in numbers:
            # Quantiles of all tokens are read off histograms.
            if not re.search(r"_q\d\d$", column):
                close = np.allclose(table[column], other[column], 1e-3, 1e-4, equal_nan=True)
                assert close, (name, column)


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


def test_the_report_says_what_each_figure_shows(finished, tmp_path):
    """In the words of the figure's module, so that a new figure needs no caption of its own. A title stays text; one
    that would not, a config may not have."""
    page, odd = tmp_path / "report.html", "\u2028\"'};window.ran=1;// `a <3 javascript:x>`_ {{ 1 }}"
    model = finished.config["models"]["gpt2"]
    done = finished.snakemake("--report", str(page), models={"gpt2": model | {"title": odd}})
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert "</script>" not in re.search(r'<script id="results">(.*?)</script>', text, re.S)[1]
    ended = finished.snakemake("--dry-run", models={"gpt2": model | {"title": "</script>"}})
    assert ": models.gpt2.title: '</script>' does not match" in ended.stderr.splitlines()[-1]
    for figure in FIGURES:
        module = ROOT / f"workflow/selfrepair/figures/{figure.module}.py"
        first = module.read_text().removeprefix('"""').split("\n")[0].removesuffix('"""')
        assert html.escape(first).split("&")[0] in text, figure.key
        model = "all models" if figure.scope == "study" else odd.replace("{", "(").replace("}", ")")
        labels = {"figure": figure.key, "name": figure.name, "model": model}
        assert re.search(rf'"labels": *{re.escape(json.dumps(labels))}', text), figure.key


def test_its_results_are_read_from_python(finished):
    """Every table, figure and sentence, from the folder as the workflow leaves it."""
    study = selfrepair.load_results(finished.folder / "results/tiny")
    assert study.models == {"gpt2": "Tiny GPT-2"}
    for name in study.tables:
        assert study.table(name).height >= 0
    model = study.model("Tiny GPT-2")
    for figure in FIGURES:
        assert model.figure(figure.key).to_dict()["title"]["text"]
        page = finished.folder / "figures/tiny" / ("" if figure.scope == "study" else "gpt2")
        drawn = (page / f"{figure.key}-{figure.name}.html").read_text()
        assert f"<figcaption>{html.escape(model.caption(figure.key))}</figcaption>" in drawn
    assert model.explain() in study.explain()
    assert "Tiny GPT-2" in repr(study)
    assert f"Claims of the paper, {len(CLAIMS)} in all" in model.explain()
    (chosen, *_) = model.table("neuron_counts").select("layer", "head").iter_rows()
    assert "Neurons of the MLP" in model.head(*chosen).explain()


def test_a_second_run_has_nothing_to_do_and_says_so(finished):
    done = finished.snakemake()
    assert done.returncode == 0
    assert "Nothing to be done" in done.stdout + done.stderr


def test_a_config_value_re_runs_what_depends_on_it(finished):
    # Intervals of the map are no bootstrap's.
    every = {"decompose", "write_page"} | TABULATE | OF_HEADS | (DRAW - {"draw_E13", "draw_E14"})
    assert finished.planned(statistics={"resamples": 1500}) == every
    ablations = finished.config["ablations"]
    more = ablations | {"zero": ablations["zero"] | {"tokens_per_head": 3}}
    planned = finished.planned(ablations=more)
    assert {"draw_tokens_zero", "ablate_zero", "gather_sweep", "decompose"} <= planned
    done = {"sample_documents", "cut_prompts", "clean_pass", "rank_tokens", "ablate_resample"}
    assert not planned & (done | MEASURE | {"draw_tokens_resample", "map_repair"})
    more = ablations | {"resample": ablations["resample"] | {"map": False}}
    planned = finished.planned(ablations=more)
    assert {"ablate_resample", "map_repair", "draw_E13"} <= planned
    assert not planned & {"ablate_zero", "draw_tokens_resample", "clean_pass"}
    clean = finished.config["clean"] | {"candidate_share": 0.5}
    assert {"clean_pass", "rank_tokens"} <= finished.planned(clean=clean)
    fewer = finished.config["experiments"] | {"iterative_tokens_per_head": 1}
    planned = finished.planned(experiments=fewer)
    assert {"measure_iterative", "tabulate_iterative", "draw_E11a", "judge_claims"} <= planned
    assert not planned & (done | ABLATE | {"measure_neurons", "ablate_chosen", "decompose"})


@pytest.fixture(scope="module")
def editable(finished, tmp_path_factory) -> Checkout:
    """A copy that a test may change if it puts everything back."""
    return finished.copy(tmp_path_factory.mktemp("editable") / "repo")


@contextmanager
def edited(checkout: Checkout, module: str) -> Iterator[None]:
    """A module of the library with a line more."""
    path = checkout.folder / f"workflow/selfrepair/{module}.py"
    before = path.read_text()
    path.write_text(before + "\n# A change.\n")
    try:
        yield
    finally:
        path.write_text(before)


@pytest.mark.parametrize(
    ("module", "re_run"),
    [
        ("figures/e07_most_repairing_neurons", {"draw_E7"}),
        ("figures/saving", DRAW),
        ("claims/judge", {"judge_claims", "write_page"}),
        ("claims/page", {"judge_claims", "write_page"}),
        ("published/compare", {"compare_published", "draw_published"}),
        ("catalogue", set()),
        ("study/planning", set()),
        ("study/amounts", set()),
        ("study/schema", set()),
    ],
)
def test_editing_a_module_re_runs_what_uses_it_alone(editable, module, re_run):
    with edited(editable, module):
        assert editable.planned() == re_run


@pytest.mark.parametrize(
    ("module", "re_run", "left_alone"),
    [
        ("tables/bootstrap", {"decompose", *TABULATE} | OF_HEADS, {*ABLATE, *WITHOUT_PAIRS}),
        ("tables/neurons", {"tabulate_neurons", "draw_E9"}, {*ABLATE, *MEASURE, "decompose"}),
        ("measure/neurons", {"measure_neurons"}, {*ABLATE, "measure_iterative", "clean_pass"}),
        ("model/replay", {*ABLATE, *MEASURE, "clean_pass"}, {"sample_documents", "cut_prompts"}),
        ("measure/ranking", {"rank_tokens", *ABLATE}, {"clean_pass", "cut_prompts"}),
        ("measure/prompt_sums", ABLATE, {"clean_pass", "rank_tokens"}),
        ("tables/repair_map", {"map_repair", "draw_E13"}, {*ABLATE, *WITHOUT_PAIRS, "decompose"}),
        ("text/windows", {"cut_prompts", *ABLATE}, {"sample_documents"}),
    ],
)
def test_editing_a_module_re_runs_its_rules_and_what_follows(editable, module, re_run, left_alone):
    with edited(editable, module):
        planned = editable.planned()
    assert re_run <= planned
    assert not left_alone & planned


def test_editing_the_cleaning_of_news_leaves_other_texts_and_their_sweeps_alone(editable):
    """Only documents are sampled anew; nothing else is stale if they are what they were."""
    with edited(editable, "text/cleaning"):
        assert editable.planned("documents") == {"sample_documents"}
        done = editable.snakemake("documents")
        assert done.returncode == 0, done.stderr
        assert editable.planned() == set()
    assert editable.snakemake("documents").returncode == 0


def test_judging_claims_loads_no_torch():
    """Nor drawing a figure: all that their rules run takes a second to start."""
    modules = {
        path.removeprefix("workflow/").removesuffix(".py").replace("/", ".")
        for path in (*code_of("judge_claims", ROOT), *code_of("summarise", ROOT))
        if path.startswith("workflow/selfrepair/")
    }
    assert "selfrepair.claims.judge" in modules
    code = f"import sys, {', '.join(sorted(modules))}; print('torch' in sys.modules)"
    done = run_in(ROOT, sys.executable, "-c", code)
    assert done.stdout.strip() == "False", done.stderr


def test_deleting_a_figure_makes_only_that_figure(copy_of_finished):
    figure = copy_of_finished.folder / "figures/tiny/E1-self-repair-by-depth.png"
    figure.unlink()
    assert copy_of_finished.planned() == {"draw_E1"}


def test_whatever_is_missing_is_noticed(copy_of_finished):
    """The study's target names every result, whether or not a later one still needs it."""
    for name, rule in {
        "documents.parquet": "sample_documents",
        "claims_over_models.parquet": "judge_claims",
        "gpt2/prompts.parquet": "cut_prompts",
        "gpt2/parts.json": "find_parts",
        "gpt2/clean.safetensors": "rank_tokens",
        "gpt2/drawn/zero.parquet": "draw_tokens_zero",
        "gpt2/sweeps/resample.json": "gather_sweep",
        "gpt2/chosen-heads.json": "choose_heads",
        "gpt2/experiments/neurons.json": "gather_experiment",
        "gpt2/repair_layers.parquet": "map_repair",
        "gpt2/agreement.json": "check_sweep",
        "gpt2/heads.parquet": "decompose",
    }.items():
        path = copy_of_finished.folder / "results/tiny" / name
        aside = path.with_name("aside")
        path.rename(aside)
        assert rule in copy_of_finished.planned(), name
        aside.rename(path)
    assert copy_of_finished.planned() == set()


def test_a_wrong_number_stops_the_study_before_any_table(copy_of_finished):
    """In the first shard, which its sidecar vouches for, as a device that computes wrongly would leave it."""
    results = copy_of_finished.folder / "results/tiny/gpt2"
    shard = results / "sweeps/resample/shard-0of2.safetensors"
    record = json.loads(shard.with_suffix(".json").read_text())
    arrays = load_file(shard)
    arrays["self_repair"] += 0.01
    write_tensors(shard, arrays, {k: v for k, v in record.items() if k != "sha256"})
    before = {path: path.stat().st_mtime_ns for path in results.glob("*.parquet")}
    done = copy_of_finished.snakemake()
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(
        "error: results/tiny/gpt2/sweeps/resample/shard-0of2.safetensors (model gpt2,"
    )
    assert ": self_repair is " in last
    assert {path: path.stat().st_mtime_ns for path in results.glob("*.parquet")} == before
    assert not (results / "agreement.json").exists()


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


def test_an_interrupted_clean_pass_goes_on_from_the_shards_that_are_there(copy_of_finished):
    folder = copy_of_finished.folder / "results/tiny/gpt2"
    ranked = folder / "clean.safetensors"
    before = ranked.read_bytes()
    first, second = (folder / f"clean/shard-{shard}of2.safetensors" for shard in (0, 1))
    made = first.stat().st_mtime_ns
    for path in (second, second.with_suffix(".json"), ranked, folder / "clean.json"):
        path.unlink()
    done = copy_of_finished.snakemake("results/tiny/gpt2/clean.json")
    assert done.returncode == 0, done.stderr
    assert ranked.read_bytes() == before
    assert first.stat().st_mtime_ns == made


def test_the_workflow_reads_modules_only_from_the_checkout(finished):
    """So that the tests above test these files, whatever is installed."""
    assert Path(selfrepair.__file__).name == "__init__.py"
    done = finished.snakemake("--list-rules")
    assert "sample_documents" in done.stdout


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"sed": 1},
            r"config: unknown key sed \(did you mean seed\?\); known keys are ablations, cache, clean, device",
        ),
        ({"seed": -1}, r"seed: -1 is less than the minimum of 0"),
        ({"models": {"x": {"name": "/nowhere/at/all"}}}, r"/nowhere/at/all is no Hugging Face"),
        (
            {"sweep": {"heads": [[3, 0]]}},
            r"sweep.heads, model gpt2: \[3, 0\] is not one of 3 layers",
        ),
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
        ("study: [", "this is no YAML: line 1, column "),
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


def test_what_takes_minutes_to_fetch_is_told_before_and_after_and_once(fresh, tmp_path):
    checkout = fresh()
    file = write_gguf(tmp_path / "tiny.gguf", tiny_model("llama"))
    config = {key: value for key, value in checkout.config.items() if key != "published"}
    config |= {"models": {"tiny": {"gguf": str(file)}}, "cache": str(tmp_path / "cache")}
    path = checkout.folder / "config/mine.yaml"
    path.write_text(yaml.safe_dump(config))
    told = [
        run_in(checkout.folder, sys.executable, "workflow/scripts/fetch.py", str(path)).stderr
        for _ in range(2)
    ]
    first, last = told[0].splitlines()
    assert first == "tiny: fetching its weights and converting them"
    assert last.startswith("tiny: weights are ready after ")
    assert told[1] == ""


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
