"""What replayed sublayers add along the target directions, summed while they run.

Everywhere in the replayed rows, or at some places alone: then only these are projected.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .decoder import Decoder
from .products import dot, sum_dtype

# Clean scales of a layer's post-norms, [row, position]: of its attention and of its MLP, per layer.
Scales = list[tuple[Tensor | None, Tensor | None]]


@dataclass
class Places:
    """Positions in replayed rows, a (row, position) pair each."""

    row: Int[Tensor, " place"]
    position: Int[Tensor, " place"]

    def of(self, values: Float[Tensor, "row position ..."]) -> Float[Tensor, "place ..."]:
        return values[self.row, self.position]


@dataclass
class Parts:
    """Dot products with the target direction, of each replayed component alone, before any division by S.

    heads: of the change of what each later head adds; mlps: of what each MLP adds in the replay; both at
    the clean scales of post-norms. attention_norms, mlp_norms: what the changed scale of each post-norm
    does. Zero for whatever is not replayed.
    """

    heads: Float[Tensor, "*place layer head"]
    mlps: Float[Tensor, "*place layer"]
    attention_norms: Float[Tensor, "*place layer"]
    mlp_norms: Float[Tensor, "*place layer"]


class Sums:
    """Running dot products of what the sublayers add, [row, position] or [place], and hooks that take them.

    Args:
        directions: u, everywhere or at the places; shape: rows and positions replayed; scales: of every
            layer's post-norms, everywhere.
        places: where to look, None for everywhere.
        clean_z: gives the clean z of a layer where it is looked, [*place, head, d_head]; without it no
            parts are kept.
    """

    def __init__(
        self,
        decoder: Decoder,
        directions: Float[Tensor, "*place d_model"],
        *,
        shape: Sequence[int],
        scales: Scales,
        places: Places | None,
        clean_z: Callable[[int], Tensor] | None,
    ) -> None:
        self._layers, self._directions = decoder.layers, directions
        self._shape, self._scales, self._places = shape, scales, places
        self._clean_z = clean_z
        where, dtype = directions.shape[:-1], sum_dtype(directions.dtype)

        def zeros(*sizes: int) -> Tensor:
            return torch.zeros(*where, *sizes, dtype=dtype, device=directions.device)

        self.heads, self.mlps, self.post_norms = zeros(), zeros(), zeros()
        self.parts: Parts | None = None
        if clean_z is not None:
            layers, heads = decoder.n_layers, decoder.n_heads
            self.parts = Parts(zeros(layers, heads), zeros(layers), zeros(layers), zeros(layers))

    def looked_at(self, values: Tensor) -> Tensor:
        """What of [row, position, …] is looked at."""
        return values if self._places is None else self._places.of(values)

    def hooks(self, ablated: int) -> list[RemovableHandle]:
        """Sum what changes: MLPs from the ablated layer on, other heads from the next layer on."""
        handles = []
        for index, layer in enumerate(self._layers[ablated:], start=ablated):
            if index > ablated:
                hook = self._attention_hook(index)
                handles.append(layer.output_projection.register_forward_hook(hook))
            handles.append(layer.mlp.register_forward_hook(self._mlp_hook(index)))
        return handles

    def add_ablated_norm(
        self, layer: int, attention_out: Float[Tensor, "row position d_model"]
    ) -> None:
        """What the scale of the ablated layer's own attention post-norm does, if there is one."""
        if self._layers[layer].attention_write.norm is not None:
            self._add_attention(layer, attention_out, only_norm=True)

    def _attention_hook(self, index: int) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def result(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            self._add_attention(index, output)
            if self.parts is not None:
                z = self.looked_at(args[0].reshape(*self._shape, -1))
                self.parts.heads[..., index, :] = self._head_changes(index, z)

        return result

    def _mlp_hook(self, index: int) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def result(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
            write, scale = self._layers[index].mlp_write, self._scales[index][1]
            added, changed = self._projected(write, output, scale)
            self.mlps.add_(added)
            if self.parts is not None:
                self.parts.mlps[..., index] = added
            if changed is not None:
                self.post_norms.add_(changed)
                if self.parts is not None:
                    self.parts.mlp_norms[..., index] = changed

        return result

    def _add_attention(self, index: int, output: Any, *, only_norm: bool = False) -> None:
        write, scale = self._layers[index].attention_write, self._scales[index][0]
        added, changed = self._projected(write, output, scale)
        if not only_norm:
            self.heads.add_(added)
        if changed is not None:
            self.post_norms.add_(changed)
            if self.parts is not None:
                self.parts.attention_norms[..., index] = changed

    def _projected(
        self, write: Any, output: Any, clean_scale: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """What a sublayer's output adds at the clean scale, and what a changed scale adds to that."""
        whole = output[0] if isinstance(output, tuple) else output
        raw = self.looked_at(whole.reshape(*self._shape, -1))
        if write.norm is None:
            return write.projection(raw, self._directions, None), None
        assert clean_scale is not None, "a post-norm needs its clean scale"
        return write.rescaled(raw, self._directions, self.looked_at(clean_scale))

    def _head_changes(
        self, index: int, z: Float[Tensor, "*place heads_and_d_head"]
    ) -> Float[Tensor, "*place head"]:
        """(z' - z) W_O . u of every head of a layer."""
        assert self._clean_z is not None
        layer, clean_scale = self._layers[index], self._scales[index][0]
        scale = None if clean_scale is None else self.looked_at(clean_scale)
        directions = layer.attention_write.through(self._directions, scale)
        seen = directions @ layer.w_o.flatten(0, 1).T
        clean = self._clean_z(index)
        return dot(z.reshape(clean.shape) - clean, seen.reshape(clean.shape))
