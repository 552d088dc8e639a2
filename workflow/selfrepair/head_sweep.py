"""Ablate every head and measure what the rest of the model makes up for (method sections 2 and 3).

One sweep = a clean pass per batch of prompts, then for each layer all its heads at once, in chunks
of (head, prompt) rows small enough to stay in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .ablation import ablated_rows, check_ablations, replacement
from .direct_effect import (
    CleanBatch,
    batches,
    check_error,
    check_size,
    check_tokens,
    clean_batch,
    clean_pass,
    stored,
    tensors_of,
)
from .errors import InputError
from .models import Decoder
from .replay import Replay, dot

# Rows of one replay, in tokens: enough to feed the matrix products, few enough to stay in the cache;
# a GPU wants more work at once.
CHUNK_TOKENS = {"cpu": 1024, "cuda": 16384}

Progress = Callable[[float], None]


@dataclass
class SweepResult:
    """What an ablation of each head did; arrays on the CPU, float32 (float64 for a float64 model).

    [prompt, position, layer, head] in logits, layer and head say which head was ablated, NaN where a
    head was not asked for: direct_effect (clean), ablated_direct_effect (of the ablated head, clean
    S), delta_logit, self_repair, from_heads, from_mlps, from_norm; ablated_scale is S' (residual
    units). [prompt, position]: scale, clean S. The errors are the largest seen, in logits.
    """

    direct_effect: Float[Tensor, "prompt position layer head"]
    ablated_direct_effect: Float[Tensor, "prompt position layer head"]
    delta_logit: Float[Tensor, "prompt position layer head"]
    self_repair: Float[Tensor, "prompt position layer head"]
    from_heads: Float[Tensor, "prompt position layer head"]
    from_mlps: Float[Tensor, "prompt position layer head"]
    from_norm: Float[Tensor, "prompt position layer head"]
    ablated_scale: Float[Tensor, "prompt position layer head"]
    scale: Float[Tensor, "prompt position"]
    conservation_error: float
    decomposition_error: float

    def arrays(self) -> dict[str, Tensor]:
        """The tensors by name."""
        return tensors_of(self)


# Measured per (head, prompt) row; ablated_scale is the only one that is no number of logits.
PER_HEAD = tuple(
    f.name
    for f in fields(SweepResult)
    if f.name not in ("direct_effect", "scale", "conservation_error", "decomposition_error")
)


def sweep(
    model: Decoder,
    tokens: Int[Tensor, "prompt length"],
    *,
    donors: Int[Tensor, "prompt length"] | None = None,
    ablation: str = "resample",
    mean_z: Float[Tensor, "layer head d_head"] | None = None,
    heads: Iterable[tuple[int, int]] | None = None,
    batch: int = 8,
    chunk: int | None = None,
    progress: Progress | None = None,
) -> SweepResult:
    """Ablate each head at all positions of each prompt and decompose the self-repair.

    Args:
        model: from `load_model`.
        tokens: integers [prompt, position]; the last position is only a target.
        donors: for resample ablation, the prompts whose activations are put in place.
        ablation: "resample" (needs donors), "mean" or "zero".
        mean_z: for mean ablation, the mean z over a larger sample; by default over `tokens`.
        heads: (layer, head) pairs to ablate; by default all of them.
        batch: prompts recorded at once; chunk: rows replayed at once (by default sized to the
            device). Neither changes the result beyond rounding.
        progress: called with the share of the work done since the last call.
    Raises:
        InputError: tokens, donors, ablation or heads that do not fit the model or each other.
        ExactnessError: the conservation law or the decomposition is off by more than the bound.
    """
    results = sweep_each(
        model,
        tokens,
        {ablation: heads},
        donors=donors,
        mean_z=mean_z,
        batch=batch,
        chunk=chunk,
        progress=progress,
    )
    return results[ablation]


def sweep_each(
    model: Decoder,
    tokens: Int[Tensor, "prompt length"],
    heads: Mapping[str, Iterable[tuple[int, int]] | None],
    *,
    donors: Int[Tensor, "prompt length"] | None = None,
    mean_z: Float[Tensor, "layer head d_head"] | None = None,
    batch: int = 8,
    chunk: int | None = None,
    progress: Progress | None = None,
) -> dict[str, SweepResult]:
    """Several ablations, each of its own heads (None: of all), on one clean pass; as `sweep`."""
    check_tokens(model, tokens)
    check_ablations(heads, tokens, donors, mean_z, model)
    if donors is not None:
        check_tokens(model, donors, name="donors")
    check_size("batch", batch)
    chunk = chunk_rows(model, tokens.shape[1] - 1, chunk)
    chosen = {ablation: _by_layer(model, asked) for ablation, asked in heads.items()}
    if "mean" in heads and mean_z is None:
        mean_z = clean_pass(model, tokens, batch=batch).mean_z
    replay = Replay(model)
    parts: dict[str, list[SweepResult]] = {ablation: [] for ablation in heads}
    costs = [_cost(model, at) * len(h) for layers in chosen.values() for at, h in layers.items()]
    work = sum(costs) * tokens.shape[0]
    report = (lambda layer, rows: progress(rows * _cost(model, layer) / work)) if progress else None
    donor_rows = batches(donors, batch) if donors is not None else iter(())
    for rows in batches(tokens, batch):
        clean = clean_batch(model, replay, rows.to(model.device))
        donor_z = None
        if donors is not None:
            partner = next(donor_rows)[:, :-1].to(model.device)
            donor_z = replay.record(partner).z
        for ablation, layers in chosen.items():
            one = _SweepBatch(model, replay, clean, ablation, donor_z, mean_z, chunk)
            parts[ablation].append(one.run(layers, report))
    return {ablation: _join(found) for ablation, found in parts.items()}


def chunk_rows(model: Decoder, positions: int, chunk: int | None) -> int:
    """Rows to replay at once: as asked, or as many of `positions` tokens as suit the device.

    Raises:
        InputError: a chunk below one.
    """
    if chunk is not None:
        check_size("chunk", chunk)
        return chunk
    room = CHUNK_TOKENS.get(model.device.type, CHUNK_TOKENS["cuda"])
    return max(1, room // positions)


def _by_layer(model: Decoder, heads: Iterable[tuple[int, int]] | None) -> dict[int, list[int]]:
    if heads is None:
        return {layer: list(range(model.n_heads)) for layer in range(model.n_layers)}
    chosen: dict[int, list[int]] = {}
    for layer, head in sorted(set(heads)):
        if not (0 <= layer < model.n_layers and 0 <= head < model.n_heads):
            raise InputError(
                f"heads: ({layer}, {head}) is not one of {model.n_layers} layers x "
                f"{model.n_heads} heads, counted from 0"
            )
        chosen.setdefault(layer, []).append(head)
    if not chosen:
        raise InputError("heads: none given; leave it out for all heads")
    return chosen


def _cost(model: Decoder, layer: int) -> float:
    """Layers run per row: all later ones, and about half of the ablated one (its MLP)."""
    return model.n_layers - layer - 0.5


@dataclass
class _SweepBatch:
    """One batch of prompts: its clean pass, and the ablations of all chosen heads on it."""

    model: Decoder
    replay: Replay
    clean: CleanBatch
    ablation: str
    donor_z: list[Tensor] | None
    mean_z: Tensor | None
    chunk: int

    @torch.no_grad()
    def run(
        self, chosen: dict[int, list[int]], report: Callable[[int, int], None] | None
    ) -> SweepResult:
        prompts, positions = self.clean.scale.shape
        shape = (len(PER_HEAD), self.model.n_layers, self.model.n_heads, prompts, positions)
        dtype = self.clean.direct_effect.dtype
        out = torch.full(shape, torch.nan, dtype=dtype, device=self.model.device)
        self._sum_clean()
        for layer, heads in chosen.items():
            delta_z = self._delta_z(layer)
            rows = torch.cartesian_prod(torch.tensor(heads), torch.arange(prompts))
            for part in rows.to(self.model.device).tensor_split(-(-len(rows) // self.chunk)):
                head, prompt = part.T
                measured = self._measure(layer, head, prompt, delta_z[prompt, :, head])
                out[:, layer, head, prompt] = measured
                if report:
                    report(layer, len(part))
        return self._result(out.permute(0, 3, 4, 1, 2), chosen)

    def _sum_clean(self) -> None:
        """Clean dot products with u that every replay is compared with: of the final residual, and
        of all attention and MLP outputs from each layer on, [layer + 1, …]."""
        u, recording = self.clean.targets.directions, self.clean.recording
        self.clean_projection = dot(recording.residual[-1], u)
        self.clean_heads = _suffix_sums([dot(a, u) for a in recording.attention_out])
        self.clean_mlps = _suffix_sums([dot(m, u) for m in recording.mlp_out])

    def _delta_z(self, layer: int) -> Float[Tensor, "prompt position head d_head"]:
        donor_z = None if self.donor_z is None else self.donor_z[layer]
        z = self.clean.recording.z[layer]
        return (
            replacement(self.model, layer, self.ablation, donor_z=donor_z, mean_z=self.mean_z) - z
        )

    def _measure(
        self,
        layer: int,
        head: Tensor,
        prompt: Tensor,
        delta_z: Float[Tensor, "row position d_head"],
    ) -> Float[Tensor, "quantity row position"]:
        """Every quantity of PER_HEAD for some rows; a row whose z does not change is unchanged."""
        scale = self.clean.scale[prompt]
        effect = self.clean.direct_effect[prompt, :, layer, head]
        zero = torch.zeros_like(effect)
        columns = {name: zero for name in PER_HEAD}
        columns |= {"ablated_direct_effect": effect, "ablated_scale": scale}
        measured = torch.stack([columns[name] for name in PER_HEAD])
        changed = delta_z.ne(0).flatten(1).any(1)
        if changed.any():
            changes = self._replay_rows(layer, head[changed], prompt[changed], delta_z[changed])
            measured[:, changed] = torch.stack([changes[name] for name in PER_HEAD])
        return measured

    def _replay_rows(
        self,
        layer: int,
        head: Tensor,
        prompt: Tensor,
        delta_z: Float[Tensor, "row position d_head"],
    ) -> dict[str, Float[Tensor, "row position"]]:
        u, scale = self.clean.targets.directions[prompt], self.clean.scale[prompt]
        recording = self.clean.recording
        rows = ablated_rows(self.model, recording, layer, head=head, prompt=prompt, delta_z=delta_z)
        replayed = rows.replay(self.replay, u)
        first_mlp = layer + 1 if self.model.layers[layer].parallel else layer
        heads = (replayed.heads - self.clean_heads[layer + 1][prompt]) / scale
        mlps = (replayed.mlps - self.clean_mlps[first_mlp][prompt]) / scale
        delta_effect = dot(rows.change, u) / scale
        ablated_scale = self.model.final_norm.scale(replayed.residual)
        projection = dot(replayed.residual, u)
        delta_logit = projection / ablated_scale - self.clean_projection[prompt] / scale
        return {
            "ablated_direct_effect": self.clean.direct_effect[prompt, :, layer, head]
            + delta_effect,
            "delta_logit": delta_logit,
            "self_repair": delta_logit - delta_effect,
            "from_heads": heads,
            "from_mlps": mlps,
            "from_norm": projection * (1 / ablated_scale - 1 / scale),
            "ablated_scale": ablated_scale,
        }

    def _result(self, out: Tensor, chosen: dict[int, list[int]]) -> SweepResult:
        values = {name: stored(array) for name, array in zip(PER_HEAD, out, strict=True)}
        parts = values["from_heads"] + values["from_mlps"] + values["from_norm"]
        difference = (values["self_repair"] - parts).abs()
        asked = torch.zeros(difference.shape[2:], dtype=torch.bool)
        for layer, heads in chosen.items():
            asked[layer, heads] = True
        error = float(difference[..., asked].max())  # NaN in an ablated run stays NaN: refused
        check_error("decomposition", error, self.model.dtype_name)
        return SweepResult(
            direct_effect=stored(self.clean.direct_effect),
            scale=stored(self.clean.scale),
            conservation_error=self.clean.conservation_error,
            decomposition_error=error,
            **values,
        )


def _suffix_sums(layers: list[Tensor]) -> list[Tensor]:
    """Sum over layers from each on; one more entry, zero, for after the last."""
    sums = [torch.zeros_like(layers[0])]
    for values in reversed(layers):
        sums.append(sums[-1] + values)
    return sums[::-1]


def _join(parts: list[SweepResult]) -> SweepResult:
    names = parts[0].arrays()
    arrays = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    return SweepResult(
        **arrays,
        conservation_error=max(part.conservation_error for part in parts),
        decomposition_error=max(part.decomposition_error for part in parts),
    )
