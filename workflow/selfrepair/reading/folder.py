"""The folder of a study's results: which models it has, its tables, and what to do where one is missing.

The layout is that of results/README.md. No torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from ..catalogue import EXPERIMENTS, FIGURES, PUBLISHED
from ..errors import InputError
from ..files.storage import read_json
from ..nearest import nearest

REMEDY = "`make study` with its config makes it, `make pull` gets the recorded studies"


@dataclass(frozen=True)
class ModelFolder:
    """A model of a study. key: its name in the config and of its folder; title: its name in tables."""

    path: Path
    title: str
    control_of: str | None = None
    weights: str | None = None

    @property
    def key(self) -> str:
        return self.path.name

    @cached_property
    def record(self) -> Mapping[str, Any]:
        """Provenance of the tables of heads: notes on the model, the sweeps with their tokens and errors."""
        return self._read_json("heads.json")

    @cached_property
    def clean(self) -> Mapping[str, Any]:
        """Provenance of the clean pass, with the notes that figures show."""
        return self._read_json("clean.json")

    @cached_property
    def agreement(self) -> Mapping[str, Any]:
        """What the comparison of its first shard with the plain model found."""
        return self._read_json("agreement.json")

    @property
    def tables(self) -> tuple[str, ...]:
        """The names of its tables that are there."""
        return tables_in(self.path)

    def table(self, name: str) -> pl.DataFrame:
        """One of its tables. Raises: InputError, if there is none of this name, or not yet."""
        path = self.path / f"{name}.parquet"
        if not path.is_file():
            check_name(name, self.tables)
        return read_table(path)

    def _read_json(self, name: str) -> Mapping[str, Any]:
        path = self.path / name
        if not path.is_file():
            raise missing(path)
        content: Mapping[str, Any] = read_json(path)
        return content


def models_of_study(folder: Path) -> list[ModelFolder]:
    """The models of a study in its own order, those too that have no tables yet.

    Raises:
        InputError: no such folder, or one that is no study's results.
    """
    if not folder.is_dir():
        others = _studies_in(folder.parent)
        hint = f"; {did_you_mean(folder.name, others)}" if others else "."
        raise InputError(f"{folder}: no such folder{hint} {REMEDY}")
    records = {path.parent.name: read_json(path) for path in sorted(folder.glob("*/heads.json"))}
    if not records:
        studies = _studies_in(folder)
        hint = f"name one of its studies: {', '.join(studies)}" if studies else REMEDY
        raise InputError(f"{folder}: no results of a study (no <model>/heads.json in it); {hint}")
    configs = [record["config"]["models"] for record in records.values()]
    # A study to which a model was added later: the older records do not know it.
    config = max(configs, key=len)
    titles = {key: about.get("title", key) for key, about in config.items()}
    titles |= {key: record["title"] for key, record in records.items()}
    models = []
    for key, title in titles.items():
        about = config.get(key, {})
        control_of = titles.get(about.get("control_of"))
        models.append(ModelFolder(folder / key, title, control_of, about.get("weights")))
    return models


def study_name(models: Sequence[ModelFolder]) -> str:
    """The study's name in its config."""
    finished = next(model for model in models if (model.path / "heads.json").is_file())
    return str(finished.record["config"]["study"])


def tables_in(*folders: Path) -> tuple[str, ...]:
    """The names of all tables in these folders, each once."""
    names = (path.stem for folder in folders for path in sorted(folder.glob("*.parquet")))
    return tuple(dict.fromkeys(names))


def read_table(path: Path) -> pl.DataFrame:
    """A table of the results.

    Raises:
        InputError: it is not there, or cannot be read.
    """
    if not path.is_file():
        raise missing(path)
    try:
        return pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(
            f"{path}: cannot be read ({type(error).__name__}); delete it, then {REMEDY}"
        ) from error


def check_name(name: str, names: Sequence[str]) -> None:
    """Raises InputError if a table is neither there nor one that a finished study has."""
    known = {table for figure in (*FIGURES, PUBLISHED) for table in figure.tables}
    known |= {table for experiment in EXPERIMENTS for table in experiment.tables}
    if name not in known | set(names):
        hint = did_you_mean(name, sorted(known | set(names)))
        raise InputError(f"table {name!r}: {hint} There are {', '.join(names)}")


def missing(path: Path) -> InputError:
    """What to say of a file that a finished study has."""
    return InputError(f"{path}: missing; the study is not finished, or has none. {REMEDY}")


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Names the valid one that a wrong one is most like; there is at least one."""
    return f'did you mean "{nearest(name, names, likeness=0.0)}"?'


def _studies_in(folder: Path) -> list[str]:
    return sorted({path.parents[1].name for path in folder.glob("*/*/heads.json")})
