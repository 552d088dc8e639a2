"""Checkpoints of one run of training as models of a study, from their directories to the figure over training."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from checkouts import Checkout
from figure_specs import drawn
from tiny_models import save_tiny_model

FIGURE = "figures/tiny/E19-emergence.png"
TOKENS = {"step0": 0, "step2": 4096, "step32": 65536}


@pytest.fixture
def checkpoints(fresh: Callable[[], Checkout], tmp_path: Path) -> Checkout:
    """Three tiny models of one architecture, as if they were a model in training; one ablation, few tokens."""
    checkout = fresh()
    models = {
        name: {
            "title": f"Tiny, {name}",
            "name": str(save_tiny_model("gpt2", tmp_path / name, seed=seed)),
            "training_tokens": tokens,
        }
        for seed, (name, tokens) in enumerate(TOKENS.items())
    }
    resample = {"prompts": 20, "tokens_per_head": 4, "random_tokens_per_head": 0}
    checkout.config = {key: checkout.config[key] for key in ("study", "text", "statistics")} | {
        "models": models,
        "ablations": {"resample": resample},
        "clean": {"prompts_per_shard": 24, "candidate_share": 0.2},
        "figures": {"formats": ["html", "png"]},
    }
    return checkout


def test_self_repair_is_drawn_over_training(checkpoints):
    done = checkpoints.snakemake(FIGURE)
    assert done.returncode == 0, done.stderr
    assert (checkpoints.folder / FIGURE).stat().st_size > 1000
    results = checkpoints.folder / "results/tiny"
    losses = {}
    for name, tokens in TOKENS.items():
        (row,) = pl.read_parquet(results / name / "training.parquet").to_dicts()
        clean = json.loads((results / name / "clean.json").read_text())
        assert (row["model"], row["training_tokens"]) == (f"Tiny, {name}", tokens)
        assert (row["n_prompts"], row["n_tokens"]) == (24, 24 * 15)
        assert row["mean_surprisal"] == clean["mean_surprisal_nats"] > 0
        losses[row["model"]] = row["mean_surprisal"]
    page = (checkpoints.folder / FIGURE).with_suffix(".html").read_text()
    caption = re.search("<figcaption>(.*)</figcaption>", page)[1]
    assert "Tiny, step0, Tiny, step2 and Tiny, step32" in caption
    assert "0 left of the dashed line" in caption
    packed = re.search(r'id="packed">([^<]+)<', page)[1]
    spec = json.loads(gzip.decompress(base64.b64decode(packed)))["spec"]
    (points,) = drawn(spec, "point", "mean_surprisal")
    found = {row["model"]: row["mean_surprisal"] for row in points["rows"]}
    assert found == pytest.approx(losses, rel=1e-6)

    # What was trained on how much is no part of any measurement, nor of the tables of heads.
    models = checkpoints.config["models"]
    more = models | {"step32": models["step32"] | {"training_tokens": 131072}}
    assert checkpoints.planned(FIGURE, models=more) == {"tabulate_training", "draw_E19"}
    left_out = {key: value for key, value in models["step2"].items() if key != "training_tokens"}
    none = models | {"step2": left_out}
    assert checkpoints.planned(FIGURE, models=none) == {"tabulate_training", "draw_E19"}
    assert checkpoints.planned(FIGURE) == set()
