"""One head of a model in a study's results. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from ..errors import InputError
from ..formats import listed
from ..tables.terms import main_ablation, terms_of
from ..vocabulary import TOP, bounded
from . import about_head
from .display import Text, as_html, as_text
from .folder import ModelFolder

HINT = ".rows .decomposition() .parts .backups .neurons .tokens .explain()"


@dataclass(frozen=True, repr=False)
class HeadResults:
    """What was measured of a head. layer, head: counted from 0.

    Its tables are the head's rows of the study's (results/README.md), in logits unless a column's page says
    otherwise. One that has no rows was not measured of this head.
    """

    folder: ModelFolder
    layer: int
    head: int

    @property
    def name(self) -> str:
        return f"L{self.layer}H{self.head}"

    @property
    def rows(self) -> pl.DataFrame:
        """Of `heads.parquet`: a row for each ablation and selection of tokens."""
        return self._rows("heads")

    def decomposition(self, *, ablation: str | None = None, selection: str = TOP) -> pl.DataFrame:
        """Effects and the terms of self-repair, a row each, with their 95 % intervals (docs/method.md section 3).

        ablation: by default resample, or else the first that was swept; selection: "top" or "all".

        Returns:
            columns quantity; value, low, high in logits; share, share_low, share_high of the direct effect,
            null for what has none.
        Raises:
            InputError: no such ablation or selection was measured.
        """
        row = self._row(ablation or main_ablation(self.rows), selection)
        names = ("direct_effect", "ablated_direct_effect", "delta_logit", "self_repair")
        terms = terms_of(self.folder.table("heads"))
        found = []
        for name in (*names, *terms):
            ends = zip(("value", "low", "high"), bounded(name), strict=True)
            shares = zip(bounded("share"), bounded(f"{name}_share"), strict=True)
            values = {key: row[column] for key, column in ends}
            found.append({"quantity": name} | values | {k: row.get(column) for k, column in shares})
        return pl.DataFrame(found, infer_schema_length=None)

    @property
    def parts(self) -> pl.DataFrame:
        """Of `repair_map.parquet`: the later parts of the model that make up for the head, most first."""
        rows = self._rows("repair_map")
        return rows.sort("mean", descending=True)

    @property
    def backups(self) -> pl.DataFrame:
        """Of `backup_heads.parquet`: the later heads that make up most for it."""
        return self._rows("backup_heads")

    @property
    def neurons(self) -> pl.DataFrame:
        """Of `neuron_counts.parquet`: neurons that are ever among the ten most repairing, most often first."""
        return self._rows("neuron_counts").sort("instances", descending=True, maintain_order=True)

    @property
    def neuron_summaries(self) -> pl.DataFrame:
        """Of `neuron_summaries.parquet`: numbers of E7 to E10 with their intervals."""
        return self._rows("neuron_summaries")

    @property
    def tokens(self) -> pl.DataFrame:
        """Of `tokens.parquet`: the tokens that it was ablated on one by one, of a chosen head (E3)."""
        return self._rows("tokens")

    def explain(self) -> Text:
        """What was measured of the head, in sentences with numbers and 95 % intervals."""
        rows = self.rows.filter(selection=TOP)
        ablation = main_ablation(rows)
        (row,) = rows.filter(ablation=ablation).to_dicts()
        others = rows.filter(pl.col("ablation") != ablation).to_dicts()
        of_map = {"ablation": ablation}
        # A head without tokens has no map either.
        parts = (
            (self.parts.filter(**of_map), self.backups.filter(**of_map))
            if row["n_tokens"]
            else None
        )
        return Text(
            "\n".join(
                [
                    f"Layer {self.layer}, head {self.head} of {self.folder.title}.",
                    *about_head.sentences(row, others, terms_of(self.folder.table("heads"))),
                    *(about_head.map_sentences(*parts) if parts else []),
                    *self._neurons(),
                ]
            )
        )

    def _neurons(self) -> list[str]:
        lines = about_head.neuron_sentences(self.neuron_summaries, self.neurons)
        if lines:
            return lines
        chosen = self.folder.table("neuron_counts").unique(["layer", "head"]).sort("layer", "head")
        names = [f"L{row['layer']}H{row['head']}" for row in chosen.to_dicts()]
        where = f"; they were of {listed(names)}" if names else " or any other of this model"
        return [f"Single neurons: not measured of this head{where}."]

    def _rows(self, table: str) -> pl.DataFrame:
        return self.folder.table(table).filter(layer=self.layer, head=self.head)

    def _row(self, ablation: str, selection: str) -> dict[str, Any]:
        rows = self.rows.filter(ablation=ablation, selection=selection).to_dicts()
        if not rows:
            there = [f"{a}/{s}" for a, s in self.rows.select("ablation", "selection").iter_rows()]
            raise InputError(
                f"{self.name} of {self.folder.title}: {ablation}/{selection} was not measured; there"
                f" {'are' if len(there) > 1 else 'is'} {listed(there)}"
            )
        return rows[0]

    def _shown(self) -> tuple[str, pl.DataFrame, str]:
        row = self._row(main_ablation(self.rows), TOP)
        names = ("direct_effect", "self_repair", *terms_of(self.folder.table("heads")))
        cells = {name: [about_head.stated(row, name)] for name in names}
        title = f"Head {self.name} of {self.folder.title}, {row['ablation']} ablation, {row['n_tokens'] or 0} tokens"
        return title, pl.DataFrame(cells), HINT

    def __repr__(self) -> str:
        return as_text(*self._shown())

    def _repr_html_(self) -> str:
        return as_html(*self._shown())
