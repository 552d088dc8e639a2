"""A study's results as an object."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl

import selfrepair
from selfrepair.claims.claims import CLAIMS
from selfrepair.reading.about_models import last_layers
from study_folder import refused

LIBRARY = Path(selfrepair.__file__).parents[1]


def test_models_and_tables(study):
    assert study.study == "families"
    assert study.models == {
        "smollm2": "SmolLM2-135M-Instruct",
        "gemma3-270m": "Gemma 3 270M",
        "smollm2-requantised": "SmolLM2-135M-Instruct, re-quantised",
    }
    assert {"heads", "depth", "repair_map", "neuron_counts", "claims"} <= set(study.tables)


def test_a_table_has_all_models(study, folder):
    heads = study.table("heads")
    assert heads["model"].unique(maintain_order=True).to_list() == list(study.models.values())
    parts = [pl.read_parquet(folder / key / "heads.parquet") for key in study.models]
    assert heads.equals(pl.concat(parts))
    assert study.table("claims").equals(study.claims)


def test_a_table_that_does_not_name_its_model_gets_the_column(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "families")
    for key in ("smollm2", "gemma3-270m", "smollm2-requantised"):
        pl.DataFrame({"prompt": [0, 1]}).write_parquet(copy / key / "prompts.parquet")
    prompts = selfrepair.load_results(copy).table("prompts")
    assert prompts.columns == ["model", "prompt"]
    assert prompts["model"].n_unique() == 3


def test_models_by_key_or_title(study):
    assert study.model("gemma3-270m").title == "Gemma 3 270M"
    assert study.model("Gemma 3 270M").key == "gemma3-270m"
    with refused("model 'gema': did you mean \"gemma3-270m\"\\? Study families has smollm2, gemma"):
        study.model("gema")


def test_claims(study):
    assert study.claims["model"].n_unique() == 3
    assert study.claims_over_models.height == len(CLAIMS) + 3


def test_figures_of_all_models(study):
    spec = study.figure("e15-self-repair-across-models".removeprefix("e15-")).to_dict()
    assert spec["title"]["text"] == study.figure("E15").to_dict()["title"]["text"]
    caption = study.caption("E15")
    assert "Gemma 3 270M: Logits are capped." in caption
    assert caption.endswith(
        "Weights of SmolLM2-135M-Instruct, re-quantised: made up for smollm2-requantised."
    )
    with refused(r'figure E6 is of one model: \.model\("smollm2"\)\.figure\("E6"\)'):
        study.figure("E6")


def test_an_explanation_says_what_the_tables_say(study):
    text = study.explain()
    assert text.startswith("Study families: 2 models and 1 control.")
    row = study.table("depth").row(
        by_predicate=(pl.col("model") == "Gemma 3 270M")
        & (pl.col("depth") == "last quarter")
        & (pl.col("ablation") == "resample")
        & (pl.col("selection") == "top"),
        named=True,
    )
    share, low, high = (100 * row[f"self_repair_share{end}"] for end in ("", "_low", "_high"))
    assert f"{share:.0f} % [{low:.0f}, {high:.0f}] in Gemma 3 270M" in text
    assert "later_layers_repair: all 2" in text
    assert "a control of SmolLM2-135M-Instruct: " in text


def test_a_study_that_is_not_finished(folder, tmp_path):
    """One model is there, as while others still run; nothing is judged."""
    copy = shutil.copytree(folder, tmp_path / "families")
    for path in (*copy.glob("claims*"), *(copy / "gemma3-270m").iterdir()):
        path.unlink()
    study = selfrepair.load_results(copy)
    assert "not measured yet" in repr(study)
    assert "not judged yet" in study.model("smollm2").explain()
    for wanted in (
        lambda: study.model("gemma3-270m"),
        lambda: study.table("heads"),
        lambda: study.figure("E1"),
        lambda: study.explain(),
        lambda: study.claims,
    ):
        with refused(r".*\.(parquet|json): missing; .*`make study`.*`make pull`"):
            wanted()


def test_a_study_of_one_model_explains_the_model(folder, tmp_path):
    copy = tmp_path / "one"
    shutil.copytree(folder / "smollm2", copy / "smollm2")
    path = copy / "smollm2/heads.json"
    text = path.read_text()
    for model in ("gemma3-270m", "smollm2-requantised"):
        assert model in text
    record = json.loads(text)
    record["config"]["models"] = {"smollm2": record["config"]["models"]["smollm2"]}
    path.write_text(json.dumps(record))
    explained = selfrepair.load_results(copy).explain()
    assert explained.startswith("Study families: 1 model.\nSmolLM2-135M-Instruct: 30 layers of 9 ")


def test_how_it_looks(study):
    assert "Gemma 3 270M" in repr(study)
    assert ".model(key)" in repr(study)
    html = study._repr_html_()
    assert html.count("<tr>") == 4
    assert "<td>gemma3-270m</td>" in html


def test_reading_loads_neither_torch_nor_transformers(folder):
    code = (
        "import sys, selfrepair\n"
        f"study = selfrepair.load_results({str(folder)!r})\n"
        "study.explain(), study.figure('E1').to_dict()\n"
        "study.model('smollm2').explain(), study.model('smollm2').head(28, 7).explain()\n"
        "print(*(name for name in ('torch', 'transformers', 'snakemake') if name in sys.modules))\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=LIBRARY)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_the_last_layers_of_small_models():
    """A model of three layers has no last quarter."""
    rows = [("a", "last quarter"), ("a", "second half"), ("b", "second half")]
    depth = pl.DataFrame(rows, schema=["model", "depth"], orient="row")
    assert last_layers(depth) == "second half"
    assert last_layers(depth.filter(model="a")) == "last quarter"
