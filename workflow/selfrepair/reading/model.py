"""One model of a study's results. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from ..errors import InputError
from ..tables.terms import main_ablation, terms_of
from ..vocabulary import QUARTERS, SECOND_HALF, TOP
from . import about_head, about_models, pictures
from .display import Text, as_html, as_text
from .folder import ModelFolder
from .head import HeadResults

if TYPE_CHECKING:
    import altair as alt

HINT = '.table("heads") .head(layer, head) .figure("E6") .claims .explain()'


@dataclass(frozen=True, repr=False)
class ModelResults:
    """What was measured of a model.

    claims: its rows of `claims.parquet`; no rows where nothing is judged yet.
    """

    folder: ModelFolder
    claims: pl.DataFrame

    @property
    def key(self) -> str:
        """Its name in the config, and of its folder."""
        return self.folder.key

    @property
    def title(self) -> str:
        """Its name in tables and figures."""
        return self.folder.title

    @property
    def control_of(self) -> str | None:
        """The title of the model that it is a control of."""
        return self.folder.control_of

    @property
    def notes(self) -> list[str]:
        """What a reader must know of the model."""
        return [*self.folder.record["notes"]]

    @property
    def agreement(self) -> Mapping[str, Any]:
        """What the comparison of its first shard with the plain model found (results/README.md).

        Raises:
            InputError: it was made before studies had one.
        """
        return self.folder.agreement

    @property
    def tables(self) -> tuple[str, ...]:
        """The names of its tables (results/README.md)."""
        return self.folder.tables

    def table(self, name: str) -> pl.DataFrame:
        """A table by its name, such as "heads" or "depth".

        Raises:
            InputError: there is no such table, or it is not made yet.
        """
        return self.folder.table(name)

    def head(self, layer: int, head: int) -> HeadResults:
        """One head, both counted from 0.

        Raises:
            InputError: the model has no such head, or the tables of heads are not made yet.
        """
        layers, heads = self._shape()
        if not (0 <= layer < layers and 0 <= head < heads):
            raise InputError(
                f"{self.title} has no head {head} in layer {layer}: layers are 0 to {layers - 1}, heads 0 to"
                f" {heads - 1}"
            )
        return HeadResults(self.folder, layer, head)

    def figure(self, name: str) -> alt.TopLevelMixin:
        """A figure of the catalogue as an Altair chart, by key ("E6") or name, drawn of this model alone.

        Raises:
            InputError: there is no such figure, or a table that it is drawn from is missing.
        """
        return pictures.draw(pictures.figure_named(name), [self.folder])[0]

    def caption(self, name: str) -> str:
        """How to read a figure. Raises: as `figure`."""
        return pictures.draw(pictures.figure_named(name), [self.folder])[1]

    def explain(self) -> Text:
        """What was measured of the model, in sentences with numbers and 95 % intervals."""
        layers, heads = self._shape()
        control = f", a control of {self.control_of}" if self.control_of else ""
        depth = self._depth()
        return Text(
            "\n".join(
                [
                    f"{self.title}{control}: {layers} layers of {heads} heads. {' '.join(self.notes)}".strip(),
                    *about_models.depth_sentences(depth, terms_of(depth)),
                    *about_models.map_sentences(self._last_mlp_share(depth)),
                    *about_models.neuron_sentences(self.table("neuron_summaries")),
                    *about_models.verdict_sentences(self.claims),
                ]
            )
        )

    def _last_mlp_share(self, depth: pl.DataFrame) -> str | None:
        from ..figures.e13_repair_map import last_mlp_share  # loads Altair

        layers = self.table("repair_layers").filter(ablation=depth["ablation"][0])
        # Of heads of the second half, so all of them must have been ablated.
        whole = not depth.filter(pl.col("n_tokens").is_not_null(), depth=SECOND_HALF).is_empty()
        return last_mlp_share(layers) if whole and not layers.is_empty() else None

    def _shape(self) -> tuple[int, int]:
        last = self.table("heads").select(pl.col("layer", "head").cast(pl.Int64).max() + 1)
        layers, heads = last.row(0)
        return layers, heads

    def _depth(self) -> pl.DataFrame:
        rows = self.table("depth").filter(selection=TOP)
        return rows.filter(ablation=main_ablation(rows))

    def _shown(self) -> tuple[str, pl.DataFrame, str]:
        depth = self._depth()
        groups = {row["depth"]: row for row in depth.to_dicts()}
        cells = {
            name: [about_head.stated(groups[name], "self_repair_share", "share")]
            for name in QUARTERS
            if name in groups
        }
        what = f"{self.title} ({self.key}): made up for, share of the direct effect, {depth['ablation'][0]} ablation"
        return what, pl.DataFrame(cells), HINT

    def __repr__(self) -> str:
        return as_text(*self._shown())

    def _repr_html_(self) -> str:
        return as_html(*self._shown())
