"""A study's results as an object: its models, their heads, tables, figures, claims. No torch.

    study = selfrepair.load_results("results/families")
    study.model("smollm2").head(28, 7).explain()

A table is read when it is asked for, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from ..claims import judge, over_models
from ..errors import InputError
from ..tables.terms import main_ablation
from ..vocabulary import TOP
from . import about_models, pictures
from .about_head import stated
from .display import Text, as_html, as_text
from .folder import (
    ModelFolder,
    check_name,
    did_you_mean,
    missing,
    models_of_study,
    read_table,
    study_name,
    tables_in,
)
from .model import ModelResults

if TYPE_CHECKING:
    import altair as alt

HINT = '.models .tables .table("heads") .model(key) .figure("E1") .claims .explain()'


def load_results(folder: str | PathLike[str]) -> StudyResults:
    """The results of a study, such as "results/families": what `make study` made or `make pull` got.

    Raises:
        InputError: no such folder, or one that is no study's results.
    """
    path = Path(folder)
    return StudyResults(path, models_of_study(path))


class StudyResults:
    """What was measured in a study.

    folder: where it lies; study: its name; models: the title of each model by its key, in the study's order.
    """

    def __init__(self, folder: Path, models: list[ModelFolder]) -> None:
        self.folder = folder
        self.study = study_name(models)
        self.models = {model.key: model.title for model in models}
        self._models = models

    @property
    def tables(self) -> tuple[str, ...]:
        """The names of all tables that are there, of models and of the study (results/README.md)."""
        return tables_in(*(model.path for model in self._models), self.folder)

    def table(self, name: str) -> pl.DataFrame:
        """A table by its name: of the study, or of all models, whose rows the column `model` tells apart.

        Raises:
            InputError: there is no such table, or it is not made yet for each model.
        """
        own = self.folder / f"{name}.parquet"
        if own.is_file():
            return read_table(own)
        check_name(name, self.tables)
        parts = [
            part
            if "model" in part.columns
            else part.select(pl.lit(model.title).alias("model"), pl.all())
            for model in self._models
            for part in [model.table(name)]
        ]
        return pl.concat(parts, how="vertical_relaxed")

    @property
    def claims(self) -> pl.DataFrame:
        """Each claim of the paper about each model: value, interval, verdict, rule. Raises: InputError, if
        nothing is judged yet."""
        return read_table(self.folder / "claims.parquet")

    @property
    def claims_over_models(self) -> pl.DataFrame:
        """The claims over all models: how many support each, and values of all together. Raises: as `claims`."""
        return read_table(self.folder / "claims_over_models.parquet")

    def model(self, name: str) -> ModelResults:
        """One model, by key or title.

        Raises:
            InputError: the study has no such model, or its tables are not made yet.
        """
        for model in self._models:
            if name in (model.key, model.title):
                if not (model.path / "heads.parquet").is_file():
                    raise missing(model.path / "heads.parquet")
                return ModelResults(
                    model, self._judged("claims", judge.SCHEMA).filter(model=model.title)
                )
        names = [*self.models, *self.models.values()]
        raise InputError(
            f"model {name!r}: {did_you_mean(name, names)} Study {self.study} has"
            f" {', '.join(self.models)}"
        )

    def figure(self, name: str) -> alt.TopLevelMixin:
        """A figure of all models as an Altair chart, by key ("E1") or name.

        Raises:
            InputError: there is no such figure, it is of one model, or a table is missing.
        """
        return self._drawn(name)[0]

    def caption(self, name: str) -> str:
        """How to read a figure. Raises: as `figure`."""
        return self._drawn(name)[1]

    def explain(self) -> Text:
        """What the study found, in sentences with numbers and 95 % intervals."""
        controls = [model for model in self._models if model.control_of]
        own = len(self._models) - len(controls)
        counted = f"{own} model{'s' * (own > 1)}" + f" and {len(controls)} control" * bool(controls)
        lines = [f"Study {self.study}: {counted}{'s' * (len(controls) > 1)}."]
        if len(self._models) == 1:
            return Text("\n".join([*lines, self.model(self._models[0].key).explain()]))
        claims = self._judged("claims", judge.SCHEMA)
        over = self._judged("claims_over_models", over_models.SCHEMA)
        return Text("\n".join(lines + about_models.study_sentences(self._depth(), claims, over)))

    def _judged(self, name: str, schema: Mapping[str, Any]) -> pl.DataFrame:
        """A table of claims, without rows where nothing is judged yet."""
        path = self.folder / f"{name}.parquet"
        return read_table(path) if path.is_file() else pl.DataFrame(schema=schema)

    def _depth(self) -> pl.DataFrame:
        rows = self.table("depth").filter(selection=TOP)
        return rows.filter(ablation=main_ablation(rows))

    def _drawn(self, name: str) -> tuple[alt.TopLevelMixin, str]:
        figure = pictures.figure_named(name)
        if figure.scope == "model":
            raise InputError(
                f'figure {figure.key} is of one model: .model("{self._models[0].key}").figure("{figure.key}")'
            )
        return pictures.draw(figure, self._models)

    def _shown(self) -> tuple[str, pl.DataFrame, str]:
        made = [model for model in self._models if (model.path / "depth.parquet").is_file()]
        made = made or self._models[:1]  # which says what is missing
        depth = pl.concat([model.table("depth").filter(selection=TOP) for model in made])
        group = about_models.last_layers(depth)
        depth = depth.filter(ablation=main_ablation(depth), depth=group)
        shares = {
            row["model"]: stated(row, "self_repair_share", "share") for row in depth.to_dicts()
        }
        rows = [
            {
                "key": model.key,
                "title": model.title,
                f"made up for, {group}": shares.get(model.title, "not measured yet"),
                "control of": model.control_of or "",
            }
            for model in self._models
        ]
        return f"Study {self.study} in {self.folder}", pl.DataFrame(rows), HINT

    def __repr__(self) -> str:
        return as_text(*self._shown())

    def _repr_html_(self) -> str:
        return as_html(*self._shown())
