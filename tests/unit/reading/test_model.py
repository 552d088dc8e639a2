"""One model of a study's results."""

import shutil

import polars as pl
import pytest

import selfrepair
from selfrepair.catalogue import FIGURES
from selfrepair.claims.claims import CLAIMS
from selfrepair.errors import InputError


def test_what_it_is_called(study, model):
    assert (model.key, model.title) == ("smollm2", "SmolLM2-135M-Instruct")
    assert model.control_of is None
    assert study.model("smollm2-requantised").control_of == model.title
    assert model.notes == ["Weights: made up for smollm2."]
    assert model.agreement["largest_difference"] == {"delta_logit": 3e-5}


def test_tables_and_claims_are_its_own(model):
    assert model.table("heads")["model"].unique().to_list() == [model.title]
    assert model.claims["model"].unique().to_list() == [model.title]
    assert "claims" not in model.tables
    with pytest.raises(InputError, match=r"^table 'token': did you mean .tokens."):
        model.table("token")


@pytest.mark.slow
@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.key)
def test_every_figure_is_drawn_from_its_tables(model, figure):
    assert model.figure(figure.key).to_dict()["title"]["text"]
    caption = model.caption(figure.name)
    assert caption.endswith(
        "Logits are capped. Weights of SmolLM2-135M-Instruct: made up for smollm2."
    )


def test_a_head_that_it_does_not_have(model):
    assert model.head(29, 8).name == "L29H8"
    for layer, head in ((30, 0), (0, 9), (-1, 0)):
        with pytest.raises(InputError, match=r"has no head .*: layers are 0 to 29, heads 0 to 8$"):
            model.head(layer, head)


def test_an_explanation_says_what_the_tables_say(study, model):
    text = model.explain()
    assert text.startswith("SmolLM2-135M-Instruct: 30 layers of 9 heads. Weights: made up")
    half = model.table("depth").filter(ablation="resample", selection="top", depth="second half")
    share = half.select(pl.col("^from_mlps_share(_low|_high)?$") * 100).row(0)
    assert "{:.0f} % [{:.0f}, {:.0f}] from MLPs".format(*share) in text
    assert "post-norms" not in text  # the model has none
    assert "anti-erasure on 20 % [15, 26] of tokens" in text  # over all chosen heads, not of one
    supported = model.claims.filter(verdict="supported").height
    assert f"Claims of the paper, {len(CLAIMS)} in all: {supported} supported" in text
    control = study.model("smollm2-requantised").explain()
    assert control.startswith("SmolLM2-135M-Instruct, re-quantised, a control of SmolLM2-135M-Inst")


def test_what_was_not_measured_is_said(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "families")
    for name in (
        "neuron_counts",
        "neuron_summaries",
        "repair_layers",
        "repair_map",
        "backup_heads",
    ):
        path = copy / f"smollm2/{name}.parquet"
        pl.read_parquet(path).clear().write_parquet(path)
    model = selfrepair.load_results(copy).model("smollm2")
    text, head = model.explain(), model.head(28, 7).explain()
    assert "Single neurons: not measured in this model" in text
    assert "Which later layer makes up for which: not measured" in text
    assert "Single neurons: not measured of this head or any other of this model" in head
    assert "Which later part makes up for it: not measured" in head


def test_how_it_looks(model):
    assert "first quarter" in repr(model)
    assert "<th>last quarter</th>" in model._repr_html_()
