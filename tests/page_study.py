"""A made up study of a few small models, from which the explorer page is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from PIL import Image

import chosen_tables
from figure_tables import change, depth_table, heads_table
from repair_tables import repair_sums
from selfrepair.catalogue import FIGURES
from selfrepair.claims.claims import CLAIMS, Depth
from selfrepair.claims.judge import judge
from selfrepair.claims.over_models import judge_over_models
from selfrepair.claims.study_models import StudyModel
from selfrepair.figures.vega import save_vega
from selfrepair.files.shards import gather
from selfrepair.files.storage import write_json, write_tensors
from selfrepair.page.data import ModelResults, page_data
from selfrepair.page.html import page_html
from selfrepair.tables.repair_map import repair_map_table
from selfrepair.vocabulary import bounded

ROOT = Path(__file__).parents[1]
BUNDLE = ROOT / "workflow/page/dist/page.html"
# What a document, a title or a licence may hold; it must stay text.
HOSTILE = "</script><script>window.ran = true</script><img src=x onerror='window.ran = true'>"
LAYERS, HEADS, PROMPTS, POSITIONS = 4, 3, 7, 41
# Tokens that a shard of a sweep draws of each head, the first of all its tokens, the rest of its top tokens.
DRAWN = 4
# A head without a value, and one of the chosen heads, of which everything was measured.
MISSING, CHOSEN = (0, 1), (3, 2)
# A character of two tokens, and one that is two units of JavaScript's strings.
WORDS = ("<b>", " naïve", " 😀", "x", " tokens", ",", "\n", " </script>")


def documents() -> pl.DataFrame:
    """A document for each prompt, the first of which is hostile throughout."""
    rows = [
        {
            "source": HOSTILE if prompt == 0 else "news",
            "document": HOSTILE if prompt == 0 else f"row {prompt}",
            "licence": HOSTILE if prompt == 0 else "made up",
            "sha256": str(prompt),
            "text": "before " + "".join(words()),
        }
        for prompt in range(PROMPTS)
    ]
    return pl.DataFrame(rows)


def words() -> list[str]:
    """The tokens of every prompt as text."""
    return [WORDS[at % len(WORDS)] for at in range(POSITIONS)]


def prompts_and_spans() -> tuple[pl.DataFrame, pl.DataFrame]:
    """prompts.parquet and token_spans.parquet, as far as the page reads them."""
    rows, spans = [], []
    for prompt, document in enumerate(documents().iter_rows(named=True)):
        found = words()
        start = len("before ")
        keys = {name: document[name] for name in ("source", "document", "licence")}
        ends = {"character_start": start, "character_end": start + len("".join(found))}
        rows.append({"prompt": prompt, **keys, "document_sha256": document["sha256"], **ends})
        lengths = [len(word) for word in found]
        spans.append({"prompt": prompt, "skips": [0] * len(found), "lengths": lengths})
    number = pl.col("prompt").cast(pl.Int32)
    return pl.DataFrame(rows).with_columns(number), pl.DataFrame(spans).with_columns(number)


def sweep(folder: Path, ablation: str, *, seed: int = 0) -> Path:
    """A gathered sweep of drawn tokens, of every head in two shards; returns its index."""
    draw = np.random.default_rng(seed)
    paths = []
    for number in range(2):
        heads = [(layer, head) for layer in range(LAYERS) for head in range(HEADS)]
        places = [(*head, at % PROMPTS, 3 * at + number) for head in heads for at in range(DRAWN)]
        columns = dict(
            zip(("layer", "head", "prompt", "position"), zip(*places, strict=True), strict=True)
        )
        arrays = {name: torch.tensor(values, dtype=torch.int32) for name, values in columns.items()}
        for name in ("direct_effect", "ablated_direct_effect", "delta_logit", "self_repair"):
            arrays[name] = torch.tensor(draw.normal(1, 1, len(places)), dtype=torch.float32)
        top = torch.tensor([at % DRAWN != 0 for at in range(len(places))])
        arrays |= {"top": top.to(torch.uint8), "random": (~top).to(torch.uint8)}
        path = folder / ablation / f"shard-{number}of2.safetensors"
        record = {"prompts": [number, number + 1], "wall_seconds": 1.0, "tokens": "sampled"}
        write_tensors(path, arrays, record)
        paths.append(path)
    index = folder / f"{ablation}.json"
    write_json(index, gather(paths, relative_to=folder))
    return index


def records(title: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The sidecars heads.json and clean.json, as far as the page reads them."""
    heads = {"sha256": "ab" * 32, "title": title, "notes": ["A note."], "map_error": 1.2e-5}
    heads["sweeps"] = {"resample": {"prompts": 7}, "zero": {"prompts": 5}}
    clean = {
        "prompts": [0, 7], "tokens_per_prompt": 41, "dtype": "float32", "tf32": False, "seed": 3,
        "architecture": "Toy", "weights": None, "model_commit": None, "bos_token": None, "notes": [],
        "warnings": ["A warning."], "mean_surprisal_nats": 3.25, "device": "a CPU",
        "versions": {"torch": "2.13.0", "transformer-lens": "4.3.0"}, "commit": "c" * 40,
    }  # fmt: skip
    return heads, clean


def full_model(folder: Path) -> ModelResults:
    """A model of which everything was measured, with one value missing."""
    key, title = "full", "Full <model>"
    heads = heads_table(title, layers=LAYERS, heads=HEADS, ablations=("resample", "zero"))
    heads = change(heads, *MISSING, self_repair=float("nan"))
    heads = heads.with_columns(
        pl.lit(value).alias(name)
        for what in ("over_corrected_share", "restored_share", "self_repair_noise")
        for name, value in zip(bounded(what), (0.25, 0.15, 0.5), strict=True)
    )
    maps = {"resample": repair_sums(LAYERS, HEADS)}
    prompts, spans = prompts_and_spans()
    tables = {
        "heads": heads,
        "prompts": prompts,
        "token_spans": spans,
        "tokens": chosen_tables.tokens(),
        "scale_ratios": chosen_tables.scale_ratios(),
        "top_neurons": chosen_tables.top_neurons(),
        "neuron_counts": chosen_tables.neuron_counts(),
        "repair_map": repair_map_table(maps, model=title),
    }
    sweeps = {
        name: sweep(folder / key, name, seed=at) for at, name in enumerate(("resample", "zero"))
    }
    return ModelResults(key, tables, *records(title), sweeps, weights="made up")


def bare_model(key: str, title: str, *, control_of: str | None = None) -> ModelResults:
    """A model with means per head alone: no experiments, no map, no single tokens."""
    heads = heads_table(title, layers=6, heads=2, ablations=("resample",), seed=1)
    prompts, spans = prompts_and_spans()
    tables = {"heads": heads, "prompts": prompts, "token_spans": spans}
    tables["tokens"] = chosen_tables.tokens().clear()
    return ModelResults(key, tables, *records(title), control_of=control_of)


def study_models_of(folder: Path, count: int = 2) -> list[ModelResults]:
    """One full model, then bare ones, the second of which is a control of the first."""
    models = [full_model(folder)]
    for number in range(1, count):
        control = "full" if number == 1 else None
        models.append(bare_model(f"bare{number}", f"Bare {number}", control_of=control))
    return models


def data_of(models: Sequence[ModelResults]) -> dict[str, Any]:
    """The page's data; claims are judged on made up tables by depth."""
    titles = [model.tables["heads"]["model"][0] for model in models]
    depth = depth_table(*titles)
    wanted = [what for claim in CLAIMS for what in (claim.value, claim.clipped)]
    names = {what.column for what in wanted if isinstance(what, Depth)}
    for name in sorted({*names, "direct_effect", "from_norm"} - set(depth.columns)):
        ends = zip(bounded(name), (0.4, 0.3, 0.5), strict=True)
        depth = depth.with_columns(pl.lit(value).alias(column) for column, value in ends)
    summaries = pl.concat(
        [chosen_tables.region_shares(), chosen_tables.correlations()], how="diagonal_relaxed"
    )
    claims = judge(depth, summaries)
    return page_data(
        "made-up",
        models,
        claims=claims,
        over_models=judge_over_models(claims, depth, [StudyModel(title) for title in titles]),
        documents=documents(),
        figures={
            model.key: {
                figure.key: f"{f'{model.key}/' * (figure.scope == 'model')}{figure.key}"
                for figure in FIGURES
            }
            for model in models
        },
        formats=["html", "png"],
    )


def write_page(folder: Path, models: Sequence[ModelResults]) -> Path:
    """The page of these models in a folder."""
    vega = folder / "vega.js"
    if not vega.exists():
        save_vega(vega)
    page = folder / "index.html"
    # Of the figures beside it, those of the study.
    for figure in FIGURES:
        if figure.scope == "study":
            Image.new("RGB", (8, 8)).save(folder / f"{figure.key}.png")
    page.write_text(page_html(BUNDLE.read_text(), data_of(models), vega.read_text()))
    return page


def renamed(model: ModelResults, key: str, title: str) -> ModelResults:
    """The same results under another name."""
    tables = {
        name: table.with_columns(model=pl.lit(title)) if "model" in table.columns else table
        for name, table in model.tables.items()
    }
    return replace(model, key=key, tables=tables)
