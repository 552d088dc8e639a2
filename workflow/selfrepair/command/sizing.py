"""Sizes of a first study: the largest that a machine measures in the time that there is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..study.planning import plan_model

# What a study takes besides running the model: starting its jobs, tables, figures, the page of claims
# (`benchmarks/tiny_study.py`: under a minute), and loading the model for each job.
OVERHEAD_MINUTES = 1.5
# Shares of the default study's sizes to choose from, the largest first.
_SCALES = (2.0, 1.5, 1.0, 0.7, 0.5, 0.35, 0.25)


@dataclass(frozen=True)
class Sizes:
    """Prompts of the sample; those that a sweep's tokens, the experiments on single heads, and iterative
    inference take; prompts and random tokens drawn of each head."""

    prompts: int
    swept: int
    chosen: int
    iterative: int
    drawn: int = 5
    random: int = 3
    iterative_top: int = 8


def scaled(scale: float, *, most: int | None = None, prompts: int | None = None) -> Sizes:
    """The default study's sizes times a scale.

    most: prompts that the text holds; prompts: of the sample, whatever the scale.
    """
    sample = prompts or max(32, round(160 * scale))
    sample = min(sample, most or sample)

    def some(number: int) -> int:
        return min(sample, max(16, round(number * scale)))

    return Sizes(sample, some(64), some(64), some(32))


def largest(
    config_for: Callable[[Sizes], Mapping[str, Any]],
    key: str,
    *,
    minutes: float,
    most: int | None = None,
    prompts: int | None = None,
) -> tuple[Sizes, float | None]:
    """The largest sizes with which a study takes so many minutes at most, or the smallest that there are.

    Args:
        config_for: a completed config of these sizes, with the model's `shape` and `plan.tflops`.
        key: of the model; most, prompts: as `scaled`.
    Returns:
        The sizes, and the minutes that they take (None: not known).
    """
    took = None
    for scale in _SCALES:
        sizes = scaled(scale, most=most, prompts=prompts)
        plan = plan_model(key, config_for(sizes))
        if plan is None or plan.hours is None:
            return scaled(1.0, most=most, prompts=prompts), None
        took = 60 * plan.hours + OVERHEAD_MINUTES
        if took <= minutes:
            break
    return sizes, took
