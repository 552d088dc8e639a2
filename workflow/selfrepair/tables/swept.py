"""What tables of heads read of a sweep: sums over each prompt's selected tokens, a layer at a time.

From the tokens that were drawn for each head, or from the sums that are stored of a sweep over all tokens
(docs/method.md section 4).
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import InputError
from ..measure.prompt_sums import (
    GROUP_TOKENS,
    HISTOGRAM,
    SUMS,
    histogram_quantiles,
    instance_sums,
)
from ..vocabulary import ALL, EFFECTS, SELECTIONS, SHARED_EFFECTS, TOP, depth_groups
from .bootstrap import divide
from .terms import POST_NORMS

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class LayerSums:
    """One layer of a sweep on one selection of tokens.

    sums: SUMS by name, over the selected tokens of each prompt of the sample; quantiles: of each of
    SHARED_EFFECTS, QUANTILES of the unclipped per-token ratio to the direct effect.
    """

    sums: Mapping[str, Float[np.ndarray, "prompt head"]]
    quantiles: Mapping[str, Float[np.ndarray, "level head"]]

    @property
    def prompts_with_tokens(self) -> Int[np.ndarray, " head"]:
        """In how many prompts each head's tokens lie."""
        return np.asarray((self.sums["tokens"] > 0).sum(0))


class SweptHeads(ABC):
    """A sweep of every head of a model.

    n_layers, n_prompts: of the model, of the sample; selections: that have rows in the tables.
    whole: all tokens of the sample were swept, so that every row rests on all of its prompts.
    """

    n_layers: int
    n_prompts: int
    selections: tuple[str, ...]
    whole: bool

    @abstractmethod
    def layer(self, layer: int, selection: str) -> LayerSums:
        """The sums of one layer's heads."""

    @abstractmethod
    def group_tokens(self, selection: str) -> Int[np.ndarray, "prompt group"]:
        """How many tokens of each prompt are selected for any head of each of `depth_groups`."""


class DrawnHeads(SweptHeads):
    """A sweep of the tokens that were drawn for each head: all of its instances, in main memory.

    Top tokens are those drawn from the head's top tokens; all tokens those drawn from all, if any were.
    """

    whole = False

    def __init__(
        self,
        rows: Mapping[str, Tensor],
        *,
        prompts: int,
        n_layers: int | None = None,
        n_heads: int | None = None,
    ) -> None:
        """Instances as they are stored, and the size of what they were drawn from.

        Args:
            rows: prompt, position, layer, head, top, random and EFFECTS by name, [instance]; without
                from_post_norms, which is then exactly 0.
            prompts: of the sample that tokens were drawn from; n_layers, n_heads: of the model, by
                default as many as have instances.
        Raises:
            InputError: no instances.
        """
        if not len(rows["layer"]):
            raise InputError("sweep: no tokens were drawn; take more prompts or tokens_per_head")
        post_norms = rows.get(POST_NORMS, torch.zeros(len(rows["layer"])))
        names = ("prompt", "position", "layer", "head", "top", "random", *EFFECTS)
        self._rows = {name: {**rows, POST_NORMS: post_norms}[name] for name in names}
        self.n_prompts = prompts
        self.n_layers = n_layers or int(rows["layer"].max()) + 1
        self._n_heads = n_heads or int(rows["head"].max()) + 1
        self.selections = SELECTIONS if bool(rows["random"].any()) else (TOP,)

    def _selected(self, selection: str) -> Tensor:
        return self._rows["top" if selection == TOP else "random"].bool()

    def layer(self, layer: int, selection: str) -> LayerSums:
        here = self._selected(selection) & (self._rows["layer"] == layer)
        rows = {name: values[here] for name, values in self._rows.items()}
        sums = instance_sums(rows, prompts=self.n_prompts, n_heads=self._n_heads)
        quantiles = _instance_quantiles(rows, self._n_heads)
        return LayerSums({name: sums[name].numpy() for name in SUMS}, quantiles)

    def group_tokens(self, selection: str) -> Int[np.ndarray, "prompt group"]:
        rows = {n: self._rows[n][self._selected(selection)].long().numpy() for n in _PLACES}
        groups = depth_groups(self.n_layers).values()
        tokens = np.zeros((self.n_prompts, len(groups)), dtype=np.int64)
        for index, layers in enumerate(groups):
            inside = np.isin(rows["layer"], layers)
            places = np.stack([rows["prompt"][inside], rows["position"][inside]], 1)
            prompt = np.unique(places, axis=0)[:, 0]
            tokens[:, index] = np.bincount(prompt, minlength=self.n_prompts)
        return tokens


_PLACES = ("prompt", "position", "layer")


class SummedHeads(SweptHeads):
    """A sweep of all tokens, of which `measure.prompt_sums.summed` is stored."""

    whole = True
    selections = SELECTIONS

    def __init__(
        self, layers: Sequence[Mapping[str, Tensor]], group_tokens: Mapping[str, Tensor]
    ) -> None:
        """layers: per layer the sums, [prompt, head], and histograms, [head, effect, bin], by their stored
        names; group_tokens: [prompt, group] by their stored names (`files.shards.SummedLayers` has both)."""
        self._layers, self._groups = layers, group_tokens
        self.n_layers = len(layers)
        self.n_prompts = len(group_tokens[f"{ALL}.{GROUP_TOKENS}"])
        self._read: tuple[int, Mapping[str, Tensor]] | None = None

    def layer(self, layer: int, selection: str) -> LayerSums:
        if self._read is None or self._read[0] != layer:
            self._read = layer, self._layers[layer]
        start = f"{selection}."
        found = {
            name.removeprefix(start): values.numpy()
            for name, values in self._read[1].items()
            if name.startswith(start)
        }
        bins = found.pop(HISTOGRAM)
        effects = [name for name in SHARED_EFFECTS if name in found]
        quantiles = {
            name: histogram_quantiles(bins[:, index], QUANTILES)
            for index, name in enumerate(effects)
        }
        if POST_NORMS not in found:
            nothing = _zeros(found["self_repair"])
            found |= dict.fromkeys((POST_NORMS, f"{POST_NORMS}_clipped"), nothing)
            quantiles[POST_NORMS] = _zeros(quantiles["self_repair"])
        return LayerSums(
            {name: found[name] for name in SUMS},
            {name: quantiles[name] for name in SHARED_EFFECTS},
        )

    def group_tokens(self, selection: str) -> Int[np.ndarray, "prompt group"]:
        return self._groups[f"{selection}.{GROUP_TOKENS}"].long().numpy()


def _zeros(values: np.ndarray) -> np.ndarray:
    """Exactly 0 where there is a value, NaN where it is missing."""
    return np.where(np.isnan(values), np.nan, 0.0)


def _instance_quantiles(
    rows: Mapping[str, Tensor], n_heads: int
) -> dict[str, Float[np.ndarray, "level head"]]:
    """Quantiles of the ratios of each head, exactly; NaN for a head without any."""
    heads, direct = rows["head"].numpy(), rows["direct_effect"].double().numpy()
    effects = np.stack([rows[name].double().numpy() for name in SHARED_EFFECTS])
    ratios = divide(effects, np.broadcast_to(direct, effects.shape))
    found = np.full((len(SHARED_EFFECTS), len(QUANTILES), n_heads), np.nan)
    with warnings.catch_warnings():  # a head without any value is NaN, which is meant
        warnings.simplefilter("ignore", RuntimeWarning)
        for head in np.unique(heads):
            own = ratios[:, heads == head]
            found[:, :, head] = np.nanquantile(own, QUANTILES, axis=1).T
    return dict(zip(SHARED_EFFECTS, found, strict=True))
