"""Direct effects: what each component's output adds to the centred logit of the target token.

Method section 1 (Rushing & Nanda 2024, section 2): DE(c) = (c . u) / S with the clean final norm
scale S, and the conservation law: all direct effects and b add up to the logit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import ExactnessError, InputError
from .loading import ERROR_BOUNDS, Decoder
from .memory import Room, attempt, fit
from .replay import Recording, Replay, dot


@dataclass
class Targets:
    """What the target tokens ask of the final residual.

    directions: u, [prompt, position, d_model]; offsets: b, [prompt, position], logits.
    """

    directions: Float[Tensor, "prompt position d_model"]
    offsets: Float[Tensor, "prompt position"]


def targets(decoder: Decoder, next_tokens: Int[Tensor, "prompt position"]) -> Targets:
    """Target directions u and offsets b of method section 1, table of symbols.

    u = gain * (W_U[y] - mean over vocabulary), for LayerNorm minus its own mean over d_model;
    b = bias . (W_U[y] - mean) + b_U[y] - mean b_U.
    """
    mean_row, mean_bias = _vocabulary_means(decoder)
    norm = decoder.final_norm
    rows = decoder.unembedding[next_tokens] - mean_row
    offsets = dot(rows, norm.bias.expand_as(rows))
    offsets = offsets + (decoder.unembedding_bias[next_tokens] - mean_bias)
    directions = rows * norm.gain
    if norm.centred:
        directions = directions - directions.mean(-1, keepdim=True)
    return Targets(directions, offsets)


def _vocabulary_means(decoder: Decoder) -> tuple[Tensor, Tensor]:
    if "means" not in decoder._caches:
        row = decoder.unembedding.double().mean(0).to(decoder.dtype)
        bias = decoder.unembedding_bias.double().mean().to(decoder.dtype)
        decoder._caches["means"] = row, bias
    return decoder._caches["means"]


def head_direct_effects(
    decoder: Decoder,
    layer: int,
    z: Float[Tensor, "prompt position head d_head"],
    directions: Float[Tensor, "prompt position d_model"],
    scale: Float[Tensor, "prompt position"],
) -> Float[Tensor, "prompt position head"]:
    """DE of each head's output (z - b_V) W_O, logits; the folded value bias belongs to no head."""
    part = decoder.layers[layer]
    seen = torch.einsum("pkd,hed->pkhe", directions, part.w_o)
    return dot(z - part.value_bias, seen) / scale[..., None]


def bias_direct_effect(
    decoder: Decoder,
    layer: int,
    directions: Float[Tensor, "prompt position d_model"],
    scale: Float[Tensor, "prompt position"],
) -> Float[Tensor, "prompt position"]:
    """DE of the attention output bias with the folded value bias, b_V W_O + b_O; logits."""
    part = decoder.layers[layer]
    bias = torch.einsum("he,hed->d", part.value_bias, part.w_o) + part.b_o
    return dot(bias.expand_as(directions), directions) / scale


def conservation_error(
    decoder: Decoder,
    clean: Recording,
    wanted: Targets,
    own: Float[Tensor, "prompt position"],
) -> float:
    """Largest |sum of DE + b - centred logit| in logits; own: the model's own centred logits."""
    u, scale = wanted.directions, decoder.final_norm.scale(clean.residual[-1])
    total = dot(clean.residual[0], u) / scale + wanted.offsets
    for layer in range(decoder.n_layers):
        total = total + head_direct_effects(decoder, layer, clean.z[layer], u, scale).sum(-1)
        total = total + bias_direct_effect(decoder, layer, u, scale)
        total = total + dot(clean.mlp_out[layer], u) / scale
    return float((total - own).abs().max())


@dataclass
class CleanBatch:
    """A clean pass over a few prompts: everything a replay needs, and its exactness.

    logit: [prompt, position], centred logit of the target from the model's own unembedding;
    surprisal: [prompt, position], nats.
    """

    recording: Recording
    targets: Targets
    scale: Float[Tensor, "prompt position"]
    logit: Float[Tensor, "prompt position"]
    surprisal: Float[Tensor, "prompt position"]
    direct_effect: Float[Tensor, "prompt position layer head"]
    conservation_error: float


@torch.no_grad()
def clean_batch(
    decoder: Decoder, replay: Replay, tokens: Int[Tensor, "prompt length"]
) -> CleanBatch:
    """Run prompts unchanged and measure every head's direct effect.

    Raises:
        ExactnessError: direct effects and logit differ by more than the bound of the dtype.
    """
    recording = replay.record(tokens[:, :-1])
    wanted = targets(decoder, tokens[:, 1:])
    scale = decoder.final_norm.scale(recording.residual[-1])
    logit, surprisal = _own_logits(decoder, recording.residual[-1], tokens[:, 1:])
    effects = [
        head_direct_effects(decoder, layer, recording.z[layer], wanted.directions, scale)
        for layer in range(decoder.n_layers)
    ]
    error = conservation_error(decoder, recording, wanted, logit)
    check_error("conservation", error, decoder.dtype_name)
    return CleanBatch(
        recording, wanted, scale, logit, surprisal, torch.stack(effects, dim=-2), error
    )


def _own_logits(decoder: Decoder, residual: Tensor, next_tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Centred logit and surprisal of the targets, one prompt at a time: all logits are large."""
    logits, surprisals = [], []
    for row, wanted in zip(residual, next_tokens, strict=True):
        every = decoder.to_logits(row).to(torch.promote_types(row.dtype, torch.float32))
        own = every.gather(-1, wanted[:, None])[:, 0]
        logits.append(own)
        surprisals.append(every.logsumexp(-1) - own)
    return torch.stack(logits), torch.stack(surprisals)


def check_error(kind: str, error: float, dtype: str, *, where: str = "this batch") -> None:
    """Raise ExactnessError if an error (logits) is not within the dtype's bound; NaN never is."""
    bound = ERROR_BOUNDS[dtype]
    if not error <= bound:
        raise ExactnessError(
            f"{where}: {kind} error {error:.3g} logits exceeds {bound:.3g} for {dtype}; "
            "use a wider dtype, or report the model: its numbers would be wrong"
        )


@dataclass
class CleanPass:
    """The clean pass over a whole sample; arrays on the CPU.

    direct_effect: [prompt, position, layer, head], logits; scale, logit, surprisal:
    [prompt, position]; mean_z: [layer, head, d_head], mean over all positions and prompts.
    """

    direct_effect: Float[Tensor, "prompt position layer head"]
    scale: Float[Tensor, "prompt position"]
    logit: Float[Tensor, "prompt position"]
    surprisal: Float[Tensor, "prompt position"]
    mean_z: Float[Tensor, "layer head d_head"]
    conservation_error: float


def clean_pass(
    decoder: Decoder, tokens: Int[Tensor, "prompt length"], *, batch: int = 8
) -> CleanPass:
    """Direct effects, scales and mean activations of a sample, independent of `batch`.

    Raises:
        InputError: no prompts, or prompts too short or too long for the model.
        ExactnessError: the conservation law is off by more than the dtype's bound.
    """
    check_tokens(decoder, tokens)
    batch, _ = fit(decoder, tokens.shape[1] - 1, batch=batch, chunk=1)
    replay = Replay(decoder)
    parts, worst = [], 0.0
    total = torch.zeros(decoder.n_layers, decoder.n_heads, decoder.d_head, dtype=torch.float64)
    for recorded in recorded_batches(decoder, replay, tokens, batch=batch):
        clean = recorded.clean
        z = torch.stack(clean.recording.z).double()
        total = total + z.sum((1, 2)).cpu()
        worst = max(worst, clean.conservation_error)
        parts.append((clean.direct_effect, clean.scale, clean.logit, clean.surprisal))
        del recorded, clean, z  # before the next batch is recorded
    effect, scale, logit, surprisal = (
        torch.cat([stored(array) for array in group]) for group in zip(*parts, strict=True)
    )
    mean_z = total / (tokens.shape[0] * (tokens.shape[1] - 1))
    return CleanPass(effect, scale, logit, surprisal, mean_z, worst)


def stored(tensor: Tensor) -> Tensor:
    """A measured tensor on the CPU in the dtype results have: float32, or float64 if measured so."""
    return tensor.to("cpu", torch.float64 if tensor.dtype == torch.float64 else torch.float32)


def tensors_of(result: Any) -> dict[str, Tensor]:
    """The tensors among the fields of a dataclass, by name."""
    values = {f.name: getattr(result, f.name) for f in fields(result)}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}


@dataclass
class Recorded:
    """A batch of prompts, ready for interventions: the clean pass, and z of the resample partners.

    first: the batch's first row of the sample; watched: what `watch` gave for this batch; prepared:
    what `prepare` made of it.
    """

    first: int
    clean: CleanBatch
    donor_z: list[Float[Tensor, "prompt position head d_head"]]
    watched: Any = None
    prepared: Any = None


def recorded_batches(
    decoder: Decoder,
    replay: Replay,
    tokens: Int[Tensor, "prompt length"],
    *,
    donors: Int[Tensor, "prompt length"] | None = None,
    batch: int,
    watch: Callable[[], AbstractContextManager[Any]] = nullcontext,
    prepare: Callable[[Recorded], Any] = lambda _: None,
) -> Iterator[Recorded]:
    """The prompts in as few batches of at most `batch` as it takes, as even as they go.

    A batch that does not fit into memory is halved, and so are the ones after it.

    Args:
        donors: the resample partners of the prompts, if they are needed.
        watch: a context to run each clean pass in; prepare: makes of a batch what its interventions
            need. Memory may run out in either.
    Raises:
        InputError: one prompt alone does not fit into memory.
        ExactnessError: as `clean_batch`.
    """
    room = Room(batch, what="prompts recorded", device=decoder.device)
    parts = torch.arange(len(tokens)).tensor_split(-(-len(tokens) // batch))
    pending = [(int(part[0]), int(part[-1]) + 1) for part in reversed(parts)]

    def record(first: int, end: int) -> Recorded:
        with watch() as watched:
            clean = clean_batch(decoder, replay, tokens[first:end].to(decoder.device))
        donor_z = []
        if donors is not None:
            donor_z = replay.record_z(donors[first:end, :-1].to(decoder.device))
        recorded = Recorded(first, clean, donor_z, watched)
        recorded.prepared = prepare(recorded)
        return recorded

    while pending:
        first, end = pending.pop()
        if end - first <= room.size:
            recorded = attempt(partial(record, first, end))
            if recorded is not None:
                yield recorded
                del recorded  # two batches at once would take twice the memory
                continue
            room.halve(end - first, least=1)
        middle = (first + end + 1) // 2
        pending += [(middle, end), (first, middle)]


def check_tokens(decoder: Decoder, tokens: Tensor, *, name: str = "tokens") -> Tensor:
    """Refuse token windows that the model cannot be measured on (InputError)."""
    if tokens.ndim != 2 or tokens.shape[0] < 1 or tokens.dtype not in (torch.int32, torch.int64):
        raise InputError(
            f"{name}: shape {list(tokens.shape)} of {tokens.dtype}; give int64 or int32 [prompt, position]"
        )
    if not 2 <= tokens.shape[1] <= decoder.context_length + 1:
        raise InputError(
            f"{name}: windows of {tokens.shape[1]} tokens; this model takes 2 to "
            f"{decoder.context_length + 1}"
        )
    low, high = int(tokens.min()), int(tokens.max())
    if low < 0 or high >= decoder.vocabulary:
        raise InputError(
            f"{name}: token ids from {low} to {high}; the vocabulary has 0 to {decoder.vocabulary - 1}"
        )
    return tokens
