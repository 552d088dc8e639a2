"""The clean pass of one batch of prompts after the other: the loop that every measurement runs in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import InputError
from ..model.decoder import Decoder
from ..model.direct_effect import (
    Targets,
    check_error,
    conservation_error,
    head_direct_effects,
    target_logits,
    targets,
)
from ..model.memory import BatchLimit, attempt, fit
from ..model.replay import Recording, Replay
from .workers import Workers

Progress = Callable[[float], None]
Part = TypeVar("Part")


@dataclass
class CleanBatch:
    """A clean pass over a few prompts: everything a replay needs, and its exactness.

    logit: [prompt, position], centred logit of the target from the model's own unembedding;
    surprisal: [prompt, position], nats; both of the first prompts alone where no more were checked.
    """

    recording: Recording
    targets: Targets
    scale: Float[Tensor, "prompt position"]
    logit: Float[Tensor, "checked position"]
    surprisal: Float[Tensor, "checked position"]
    direct_effect: Float[Tensor, "prompt position layer head"]
    conservation_error: float


@torch.no_grad()
def clean_batch(
    replay: Replay,
    tokens: Int[Tensor, "prompt length"],
    *,
    checked: int | None = None,
    recording: Recording | None = None,
) -> CleanBatch:
    """Run prompts unchanged and measure every head's direct effect.

    Args:
        checked: prompts, the first ones, whose logits are computed and compared with the direct effects
            (by default all): the unembedding costs a large part of a pass.
        recording: of all tokens but the last, if there is one.
    Raises:
        ExactnessError: direct effects and logit differ by more than the bound of the dtype.
    """
    decoder = replay.decoder
    recording = recording or replay.record(tokens[:, :-1])
    wanted = targets(decoder, tokens[:, 1:])
    scale = decoder.final_norm.scale(recording.residual[-1])
    u = wanted.directions
    effects = [
        head_direct_effects(
            decoder, layer, recording.z[layer], u, scale, recording.attention_scale[layer]
        )
        for layer in range(decoder.n_layers)
    ]
    effect, some = torch.stack(effects, dim=-2), slice(checked)
    logit, surprisal = target_logits(decoder, recording.residual[-1][some], tokens[some, 1:])
    error = 0.0
    if len(logit):
        error = conservation_error(decoder, recording, wanted, logit, head_effects=effect)
        check_error("conservation", error, decoder.dtype_name)
    return CleanBatch(recording, wanted, scale, logit, surprisal, effect, error)


class Recorder:
    """Records the prompts of a batch, side by side on workers where there are any."""

    def __init__(self, replay: Replay, workers: Workers | None = None) -> None:
        self._replay, self._workers = replay, workers
        self.device = replay.decoder.device

    def clean(self, tokens: Int[Tensor, "prompt length"]) -> CleanBatch:
        """The clean pass of a batch, checked on its first prompt (raises as `clean_batch`)."""
        self._replay.learn_arguments_of(tokens.shape[1] - 1)  # once, not by every worker

        def work(replay: Replay, part: slice) -> CleanBatch:
            return clean_batch(replay, tokens[part], checked=int(part.start == 0))

        return _joined(self._shared_out(work, len(tokens)))

    def z_of(
        self,
        donors: Int[Tensor, "prompt position"],
        tokens: Int[Tensor, "prompt position"],
        z: list[Float[Tensor, "prompt position head d_head"]],
    ) -> list[Float[Tensor, "prompt position head d_head"]]:
        """z of the donors, per layer; those that are prompts of the batch (tokens, z) are not run again."""
        known = {tuple(row): at for at, row in enumerate(tokens.tolist())}
        missing = list[tuple[int, ...]]()
        for row in map(tuple, donors.tolist()):
            if row not in known:
                known[row] = len(tokens) + len(missing)
                missing.append(row)
        rows = torch.tensor([known[tuple(row)] for row in donors.tolist()], device=self.device)
        if not missing:
            return [each[rows] for each in z]
        left = torch.tensor(missing, dtype=tokens.dtype, device=self.device)
        parts = self._shared_out(lambda replay, part: replay.record_z(left[part]), len(left))
        found = []
        for layer, own in enumerate(z):
            found.append(torch.cat([own, *(part[layer] for part in parts)])[rows])
            for part in parts:
                part[layer] = own[:0]  # twice in memory for one layer alone
        return found

    def _shared_out(self, work: Callable[[Replay, slice], Part], prompts: int) -> list[Part]:
        """work(replay, some prompts) for parts that together are all prompts, in their order.

        Threads that would be without a prompt help with a single part instead.
        """
        count = self._workers.count if self._workers else 1
        if self._workers is None or count == 1 or 2 * prompts <= count:
            return [work(self._replay, slice(0, prompts))]
        rows = torch.arange(prompts).tensor_split(min(count, prompts))
        parts = [slice(int(part[0]), int(part[-1]) + 1) for part in rows]
        found = dict(self._workers.map(lambda r, part: (part.start, work(r, part)), parts))
        return [found[part.start] for part in parts]


def _joined(parts: list[CleanBatch]) -> CleanBatch:
    """One batch of several; their recordings are emptied on the way."""
    if len(parts) == 1:
        return parts[0]
    recording = Recording()
    for kind in fields(Recording):
        lists = [getattr(part.recording, kind.name) for part in parts]
        joined = getattr(recording, kind.name)
        while lists[0]:
            tensors = [each.pop(0) for each in lists]
            joined.append(None if tensors[0] is None else torch.cat(tensors))
    directions = torch.cat([part.targets.directions for part in parts])
    offsets = torch.cat([part.targets.offsets for part in parts])
    return CleanBatch(
        recording=recording,
        targets=Targets(directions, offsets),
        scale=torch.cat([part.scale for part in parts]),
        logit=torch.cat([part.logit for part in parts]),
        surprisal=torch.cat([part.surprisal for part in parts]),
        direct_effect=torch.cat([part.direct_effect for part in parts]),
        conservation_error=max(part.conservation_error for part in parts),
    )


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

    @property
    def prompts(self) -> int:
        return len(self.clean.scale)

    @property
    def rows(self) -> range:
        """The batch's rows of the sample."""
        return range(self.first, self.first + self.prompts)

    def of(self, sample: Tensor) -> Tensor:
        """The rows of this batch in a tensor whose first axis is the prompts of the sample."""
        return sample[self.rows.start : self.rows.stop]


def checked_sizes(
    decoder: Decoder,
    tokens: Int[Tensor, "prompt length"],
    *,
    donors: Int[Tensor, "prompt length"] | None = None,
    batch: int | None,
    chunk: int | None,
) -> tuple[int, int]:
    """Prompts to record and rows to replay at once, once tokens and donors are known to fit the model.

    Raises:
        InputError: as `check_tokens`; not even one prompt and one row fit into memory.
    """
    check_tokens(decoder, tokens)
    if donors is not None:
        check_tokens(decoder, donors, name="donors")
    return fit(decoder, tokens.shape[1] - 1, batch=batch, chunk=chunk)


def for_each_batch(
    replay: Replay,
    tokens: Int[Tensor, "prompt length"],
    measure: Callable[[Recorded, Progress], None],
    *,
    donors: Int[Tensor, "prompt length"] | None = None,
    batch: int,
    watch: Callable[[], AbstractContextManager[Any]] = nullcontext,
    prepare: Callable[[Recorded], Any] = lambda _: None,
    workers: Workers | None = None,
    progress: Progress | None = None,
) -> float:
    """Record all prompts, a batch at a time, and measure each batch before the next is recorded.

    The conservation law is checked on the first prompt of each batch: only the clean pass, which needs
    the logits in any case, takes those of all.

    Args:
        measure: called with each batch, and with a function that takes the share of the batch that has
            been measured since the last call; what it does not report is reported at the batch's end.
        donors: the resample partners of the prompts, if they are needed.
        batch: prompts at once, at most: the batches are as few as that allows and differ by one prompt
            at most. One that does not fit into memory is halved, and so are the ones after it.
        watch: a context to run each clean pass in; prepare: makes of a batch what its interventions
            need. Memory may run out in either.
        workers: record the prompts of a batch side by side on them; a `watch` sees nothing of that.
        progress: called with the share of the whole sample that is done since the last call.
    Returns:
        The largest conservation error, in logits.
    Raises:
        InputError: one prompt alone does not fit into memory.
        ExactnessError: as `clean_batch`.
    """
    worst = 0.0
    recorder = Recorder(replay, workers)
    for recorded in _recorded_batches(
        recorder, tokens, donors=donors, batch=batch, watch=watch, prepare=prepare
    ):
        share, told = recorded.prompts / len(tokens), 0.0

        def report(part: float, share: float = share) -> None:
            nonlocal told
            told += part
            if progress:
                progress(part * share)

        measure(recorded, report)
        if told < 1 - 1e-9:  # more than rounding is left
            report(1.0 - told)
        worst = max(worst, recorded.clean.conservation_error)
        del recorded  # two batches at once would take twice the memory
    return worst


def _recorded_batches(
    recorder: Recorder,
    tokens: Int[Tensor, "prompt length"],
    *,
    donors: Int[Tensor, "prompt length"] | None,
    batch: int,
    watch: Callable[[], AbstractContextManager[Any]],
    prepare: Callable[[Recorded], Any],
) -> Iterator[Recorded]:
    device = recorder.device
    limit = BatchLimit(batch, what="prompts recorded", device=device)
    parts = torch.arange(len(tokens)).tensor_split(-(-len(tokens) // batch))
    pending = [(int(part[0]), int(part[-1]) + 1) for part in reversed(parts)]

    def record(first: int, end: int) -> Recorded:
        with watch() as watched:
            clean = recorder.clean(tokens[first:end].to(device))
        donor_z = []
        if donors is not None:
            given, own = donors[first:end, :-1], tokens[first:end, :-1]
            donor_z = recorder.z_of(given, own, clean.recording.z)
        recorded = Recorded(first, clean, donor_z, watched)
        recorded.prepared = prepare(recorded)
        return recorded

    while pending:
        first, end = pending.pop()
        if end - first <= limit.size:
            recorded = attempt(partial(record, first, end))
            if recorded is not None:
                yield recorded
                del recorded  # as above
                continue
            limit.halve(end - first, least=1)
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


def stored(tensor: Tensor) -> Tensor:
    """A measured tensor on the CPU in the dtype results have: float32, or float64 if measured so."""
    return tensor.to("cpu", torch.float64 if tensor.dtype == torch.float64 else torch.float32)


def tensors_of(result: Any) -> dict[str, Tensor]:
    """The tensors among the fields of a dataclass, by name."""
    values = {f.name: getattr(result, f.name) for f in fields(result)}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}
