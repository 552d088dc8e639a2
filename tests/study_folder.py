"""A made up study's results on disk, as `make study` would leave them: what `load_results` reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest
import torch

import chosen_tables
from repair_tables import repair_sums
from selfrepair.claims.judge import judge
from selfrepair.claims.over_models import judge_over_models
from selfrepair.claims.study_models import StudyModel
from selfrepair.errors import InputError
from selfrepair.tables.heads import head_tables
from selfrepair.tables.repair_map import (
    backup_heads_table,
    repair_layers_table,
    repair_map_table,
)
from selfrepair.tables.swept import DrawnHeads
from selfrepair.tables.training import training_table
from selfrepair.vocabulary import TERMS


class Model(NamedTuple):
    key: str
    title: str
    layers: int
    heads: int
    control_of: str | None = None


# Named as in config/families.yaml, so that what documents show runs on it; the first in its real size.
MODELS = (
    Model("smollm2", "SmolLM2-135M-Instruct", 30, 9),
    Model("gemma3-270m", "Gemma 3 270M", 6, 4),
    Model("smollm2-requantised", "SmolLM2-135M-Instruct, re-quantised", 6, 4, "smollm2"),
)
# Where the heads of the made up experiments stand in the first model.
CHOSEN = {(2, 1): (21, 3), (3, 0): (27, 7), (3, 2): (28, 7)}
ABLATIONS = ("resample", "zero")
CLEAN = {"prompts": [0, 8], "tokens_per_prompt": 128, "mean_surprisal_nats": 3.4}
AGREEMENT = {"checked": True, "ablation": "resample", "instances": 9, "heads": [[0, 1]]}
AGREEMENT |= {"largest_difference": {"delta_logit": 3e-5}, "tolerance": 1e-3}


def save_study(folder: Path) -> Path:
    """Write all tables of MODELS into `folder`/families, and return it."""
    study = folder / "families"
    config = {"study": "families", "models": {model.key: _config(model) for model in MODELS}}
    depth, summaries = [], []
    for model in MODELS:
        tables = _tables(model)
        depth.append(tables["depth"])
        summaries += [table for name, table in tables.items() if name.endswith("_summaries")]
        path = study / model.key
        path.mkdir(parents=True)
        for name, table in tables.items():
            table.write_parquet(path / f"{name}.parquet")
        notes = [f"Weights: made up for {model.key}."]
        about = {"title": model.title, "notes": notes, "config": config}
        (path / "heads.json").write_text(json.dumps(about))
        (path / "agreement.json").write_text(json.dumps(AGREEMENT))
        (path / "clean.json").write_text(json.dumps({"notes": ["Logits are capped."]}))
    titles = {model.key: model.title for model in MODELS}
    models = [StudyModel(m.title, titles.get(m.control_of or ""), 10**8) for m in MODELS]
    controls = {model.title: model.control_of for model in models if model.control_of}
    claims = judge(pl.concat(depth), pl.concat(summaries), controls)
    claims.write_parquet(study / "claims.parquet")
    over = judge_over_models(claims, pl.concat(depth), models)
    over.write_parquet(study / "claims_over_models.parquet")
    return study


def refused(message: str) -> pytest.RaisesExc[InputError]:
    """Expects a refusal in one line that begins with this regular expression."""
    return pytest.raises(InputError, match=f"^{message}[^\n]*$")


def _config(model: Model) -> dict[str, Any]:
    about: dict[str, Any] = {"title": model.title, "weights": f"made up for {model.key}"}
    return about | ({"control_of": model.control_of} if model.control_of else {})


def _tables(model: Model) -> dict[str, pl.DataFrame]:
    swept = {
        ablation: DrawnHeads(_instances(model, seed), prompts=8, n_layers=model.layers)
        for seed, ablation in enumerate(ABLATIONS)
    }
    heads, depth = head_tables(swept, model=model.title, seed=0, resamples=50)
    maps = {"resample": repair_sums(model.layers, model.heads)}
    return {
        "heads": heads,
        "depth": depth,
        "training": training_table(CLEAN, model=model.title, training_tokens=None),
        "repair_map": repair_map_table(maps, model=model.title),
        "repair_layers": repair_layers_table(maps, model=model.title),
        "backup_heads": backup_heads_table(maps, model=model.title),
        **{name: _placed(table, model) for name, table in _experiments().items()},
    }


def _instances(model: Model, seed: int) -> dict[str, torch.Tensor]:
    """Each head on 8 top tokens and 8 others, a token a prompt; the identities of the method hold."""
    draw = torch.Generator().manual_seed(seed)
    n = model.layers * model.heads * 16
    at = torch.arange(n)
    rows = {"prompt": at % 8, "position": at // 16, "head": at // 16 % model.heads}
    rows |= {"layer": at // (16 * model.heads), "top": at % 16 < 8, "random": at % 16 >= 8}
    effect = 0.5 + torch.rand(n, generator=draw)
    terms = {name: torch.randn(n, generator=draw) * 0.1 + 0.1 for name in TERMS}
    terms["from_post_norms"] = torch.zeros(n)
    repair = sum(terms.values())
    rows |= {"direct_effect": effect, "ablated_direct_effect": 0.1 * effect, **terms}
    return rows | {"self_repair": repair, "delta_logit": repair - 0.9 * effect}


def _experiments() -> dict[str, pl.DataFrame]:
    neurons = {"best_neuron_share": "E7", "top_percent_share": "E8", "overlap": "E10"}
    summaries = [
        chosen_tables.summary(name, figure, group="MLP 3", value=0.4, layer=layer, head=head)
        for name, figure in neurons.items()
        for layer, head in (*chosen_tables.HEADS, (None, None))
    ]
    schema = {"layer": pl.Int32, "head": pl.Int32}
    return {
        "tokens": chosen_tables.tokens(),
        "token_summaries": pl.concat(
            [chosen_tables.region_shares(), chosen_tables.above_shares()], how="vertical_relaxed"
        ),
        "scale_ratios": chosen_tables.scale_ratios(),
        "neuron_ranks": chosen_tables.neuron_ranks(),
        "neuron_curve": chosen_tables.neuron_curve(),
        "top_neurons": chosen_tables.top_neurons(),
        "neuron_counts": chosen_tables.neuron_counts(),
        "co_ablation": chosen_tables.co_ablation(),
        "co_ablation_summaries": chosen_tables.excesses(),
        "compared_ablations": chosen_tables.compared_ablations(),
        "compared_summaries": chosen_tables.compared(),
        "narrow_heads": chosen_tables.narrow_heads(),
        "narrow_summaries": chosen_tables.narrow_summaries(),
        "neuron_summaries": pl.concat(
            [
                pl.DataFrame(summaries, schema_overrides=schema, infer_schema_length=None),
                chosen_tables.erasure_shares(),
            ],
            how="vertical_relaxed",
        ),
        "self_repression": chosen_tables.self_repression(),
        "refeeding": chosen_tables.refeeding(),
        "iterative_summaries": chosen_tables.correlations(),
    }


def _placed(table: pl.DataFrame, model: Model) -> pl.DataFrame:
    """The table as if it were the model's; in the first model its heads stand further up."""
    table = table.with_columns(pl.lit(model.title).alias("model"))
    if "layer" in table.columns:
        table = table.with_columns(pl.col("layer", "head").cast(pl.Int32))
    if model != MODELS[0] or "layer" not in table.columns:
        return table
    here = pl.struct("layer", "head")
    moved = [
        here.replace_strict(
            [{"layer": a, "head": b} for a, b in CHOSEN],
            [place[at] for place in CHOSEN.values()],
            default=pl.col(name),
            return_dtype=pl.Int32,
        ).alias(name)
        for at, name in enumerate(("layer", "head"))
    ]
    return table.with_columns(moved)
