"""What `selfrepair check` says of a model: lines for people, or the same as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from .check import Costs, Exactness, Report
from .facts import Facts

# Tokens that costs are told for.
_TOKENS = 1000


def as_json(report: Report) -> dict[str, Any]:
    """The report as plain values; times in hours, sizes in bytes, arithmetic in FLOP, errors in logits."""
    costs, exactness = report.costs, report.exactness
    return {
        "supported": True,
        "model": report.candidate.title,
        **asdict(report.facts),
        "tokenizer": {"tokens": len(report.candidate.tokenizer), "bos": _bos(report)},
        "costs": {
            **asdict(costs),
            "tokens": _TOKENS,
            "clean_pass_flop": _TOKENS * costs.pass_flop,
            "full_sweep_flop": _TOKENS * costs.sweep_flop,
            "full_sweep_hours": costs.hours(_TOKENS * costs.sweep_flop),
        },
        "weights": None if exactness is None else asdict(exactness),
    }


def as_lines(report: Report) -> list[str]:
    """A verdict, then a line for each thing that a study depends on."""
    facts, costs = report.facts, report.costs
    told = {
        "layers": _layers(facts),
        "blocks": _blocks(facts),
        "tokenizer": f"{len(report.candidate.tokenizer):,} tokens; adds {_bos(report) or 'no BOS'}",
        "parameters": f"{facts.parameters:,}",
        "memory": f"{costs.memory_bytes / 1e9:.2g} GB of weights and activations; "
        f"{costs.free_bytes / 1e9:.2g} GB are free",
        "arithmetic": f"{_TOKENS:,} tokens are {_tflop(costs.pass_flop)} for a clean pass, "
        f"{_tflop(costs.sweep_flop)} for a full sweep (every head on every token)",
        "time here": _time(costs),
        "weights": _weights(report.exactness),
    }
    verdict = f"{report.candidate.title}: supported ({facts.architecture})"
    return [verdict, *(f"  {name:<11} {line}" for name, line in told.items())]


def _layers(facts: Facts) -> str:
    shape = facts.shape
    neurons = f"MLPs of {shape.d_mlp:,} neurons{', gated' if shape.gated else ''}"
    return (
        f"{shape.layers}, each of {shape.heads} heads ({shape.kv_heads} KV heads) of width {shape.d_head}; "
        f"residual stream {shape.d_model:,}; "
        f"{neurons if facts.neurons else 'no neurons to measure (mixture of experts)'}; "
        f"{facts.context_length:,} positions"
    )


def _blocks(facts: Facts) -> str:
    post_norms = "with post-norms" if facts.post_norms else "no post-norms"
    biases = f"biases in {', '.join(facts.biases)}" if facts.biases else "no biases"
    return f"attention and MLP {facts.blocks}; {facts.norm}, {post_norms}; {biases}"


def _bos(report: Report) -> str | None:
    """The BOS that the tokenizer adds, as a word."""
    candidate = report.candidate
    bos = candidate.bos
    return None if bos is None else str(candidate.tokenizer.convert_ids_to_tokens(bos))


def _tflop(flop_of_token: float) -> str:
    return f"{_TOKENS * flop_of_token / 1e12:,.3g} TFLOP"


def _time(costs: Costs) -> str:
    hours = costs.hours(_TOKENS * costs.sweep_flop)
    if hours is None or costs.rate is None:
        return "not measured: no layer follows another"
    return (
        f"{_duration(hours)} for a full sweep of {_TOKENS:,} tokens, at {costs.rate / 1e12:.2g} TFLOP/s "
        f"as measured on {costs.hardware}"
    )


def _duration(hours: float) -> str:
    if hours >= 1:
        return f"{hours:,.1f} hours"
    return f"{60 * hours:.1f} minutes" if 60 * hours >= 1 else f"{3600 * hours:.2g} seconds"


def _weights(exactness: Exactness | None) -> str:
    if exactness is None:
        return "not read (--weights reads them)"
    return (
        f"conservation error {exactness.conservation_error:.1e}, decomposition error "
        f"{exactness.decomposition_error:.1e} logits (allowed {exactness.allowed:g}) on "
        f"{exactness.tokens} tokens of {exactness.prompts} prompts; loss {exactness.loss:.2f} nats a token"
    )
