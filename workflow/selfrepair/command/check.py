"""Can a model be measured, what is it, and what would that cost here?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import InputError
from ..files.provenance import environment
from ..measure.clean_pass import clean_pass
from ..measure.sweep import sweep
from ..model.decoder import ERROR_BOUNDS
from ..model.finding import empty_network, parts_of
from ..model.memory import free_bytes, refuse_weights
from ..model.opening import load_model
from ..model.parts import ModelParts
from ..model.sizes import chunk_tokens, prompts_at_once
from .candidate import Candidate
from .facts import Facts, facts_of, shape_of
from .short_model import short_decoder
from .speed import POSITIONS, replay_rate

# Real text for the check of the weights, where the user gives none.
SENTENCES = (
    "The harbour of the old town freezes in January, and the boats are pulled onto the quay until the ice"
    " breaks. In spring the fishermen paint them, and children count the new names on the bows.",
    "A matrix is invertible if and only if its determinant is not zero. To see why, write the determinant as"
    " the product of the eigenvalues: it vanishes exactly when one of them does.",
)
# Tokens of real text in a prompt of that check, and prompts.
_LENGTH, _PROMPTS = 64, 4
# Characters of a text that are read for it.
_BEGINNING = 1 << 16


@dataclass(frozen=True)
class Costs:
    """What measuring a model takes on this machine.

    memory_bytes: weights and what a sweep holds beside them; free_bytes: what the device has left;
    pass_flop, sweep_flop: operations per token of a clean pass, and of ablating every head; rate:
    operations per second that replays reached here (None: nothing to replay); hardware: on what.
    """

    memory_bytes: float
    free_bytes: float
    pass_flop: float
    sweep_flop: float
    rate: float | None
    hardware: str

    def hours(self, flop: float) -> float | None:
        return None if self.rate is None else flop / self.rate / 3600


@dataclass(frozen=True)
class Exactness:
    """What a model's own weights give on real text: largest errors in logits, and what is allowed; the
    mean loss in nats per token; on so many prompts and tokens."""

    conservation_error: float
    decomposition_error: float
    allowed: float
    loss: float
    prompts: int
    tokens: int


@dataclass(frozen=True)
class Report:
    """A model that is supported; exactness: None where its weights were not read."""

    candidate: Candidate
    parts: ModelParts
    facts: Facts
    costs: Costs
    exactness: Exactness | None = None


def examine(candidate: Candidate, *, dtype: str, device: str) -> Report:
    """All that can be said of a model without its weights.

    Raises:
        InputError: it is not supported, or its weights do not fit into memory.
    """
    target, name, config = torch.device(device), candidate.location, candidate.config
    network = empty_network(config, name=name)
    parts = parts_of(network, name=name)
    shape = shape_of(network, parts)
    refuse_weights(shape, name, dtype=dtype, device=target)
    short = short_decoder(
        config, name=name, dtype=dtype, device=target, tokenizer=candidate.tokenizer
    )
    facts = facts_of(network, parts, shape, short, name=name)
    shape, workers = facts.shape, torch.get_num_threads() if target.type == "cpu" else 1
    working = shape.working_bytes(
        dtype,
        positions=POSITIONS,
        prompts=prompts_at_once(target.type),
        rows=max(1, chunk_tokens(target.type) // POSITIONS),
        workers=workers,
    )
    costs = Costs(
        memory_bytes=shape.weight_bytes(dtype, target.type) + working,
        free_bytes=free_bytes(target),
        pass_flop=shape.flop_of_pass(),
        sweep_flop=shape.flop_of_sweep(),
        rate=replay_rate(short, shape),
        hardware=_hardware(target),
    )
    return Report(candidate, parts, facts, costs)


def device_here() -> str:
    """Where a study with `device: auto` would run."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def _hardware(target: torch.device) -> str:
    seen = environment()
    threads = f"{seen['threads']} threads of " if target.type == "cpu" else ""
    return f"{threads}{seen['device']}"


def exactness_of(report: Report, *, dtype: str, device: str, text: Path | None = None) -> Exactness:
    """Load a model and measure a few real tokens with its own weights.

    text: a text file, of which the beginning is read; by default two sentences of ours.
    Raises:
        InputError: as `load_model`; or a text without a token.
        ExactnessError: sums are off by more than the dtype's bound.
        OSError: the text cannot be read.
    """
    candidate = report.candidate
    texts = SENTENCES if text is None else [_beginning(text)]
    prompts = _prompts(candidate, texts, longest=report.facts.context_length + 1)
    revision = candidate.entry.get("revision")
    model = load_model(
        candidate.location,
        device=device,
        dtype=dtype,
        revision=revision,
        parts=report.parts,
        pickle=candidate.entry.get("pickle", False),
    )
    clean = clean_pass(model, prompts)
    swept = sweep(model, prompts, ablation="zero", heads=[(model.n_layers // 2, 0)])
    return Exactness(
        conservation_error=max(clean.conservation_error, swept.conservation_error),
        decomposition_error=swept.decomposition_error,
        allowed=ERROR_BOUNDS[dtype],
        loss=float(clean.surprisal.mean()),
        prompts=len(prompts),
        tokens=prompts.numel(),
    )


def _beginning(text: Path) -> str:
    with text.open(encoding="utf-8", errors="replace") as stream:
        return stream.read(_BEGINNING)


def _prompts(candidate: Candidate, texts: Sequence[str], *, longest: int) -> torch.Tensor:
    """Windows of the texts, all of one length, each with the BOS that the tokenizer adds."""
    first = [] if candidate.bos is None else [candidate.bos]
    encoded = [
        candidate.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        for text in texts
    ]
    length = min(_LENGTH, longest, min(map(len, encoded)) + len(first)) - len(first)
    if length < 1:
        raise InputError("text: the tokenizer finds no tokens in it; give one with a few sentences")
    windows = [
        first + tokens[at : at + length]
        for tokens in encoded
        for at in range(0, len(tokens) - length + 1, length)
    ]
    return torch.tensor(windows[:_PROMPTS])
