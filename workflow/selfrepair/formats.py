"""How numbers and lists of names are written wherever people read them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

Unit = Literal["logits", "share", "ratio", ""]


def with_interval(value: float, low: float | None, high: float | None, *, unit: Unit = "") -> str:
    """A value with its 95 % interval: "56 % [52, 60]", "0.39 [0.36, 0.42] logits", "1.60 [1.38, 1.79]".

    Without an interval (None or NaN) the value alone. unit: "share" is written in percent, "logits" is
    named, "ratio" and "" are plain numbers.
    """
    known = [bound for bound in (low, high) if bound is not None and not math.isnan(bound)]
    interval = f" [{', '.join(_number(bound, unit) for bound in known)}]" if len(known) == 2 else ""
    percent, named = " %" if unit == "share" else "", " logits" if unit == "logits" else ""
    return f"{_number(value, unit)}{percent}{interval}{named}"


def listed(names: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join([", ".join(names[:-1])] * (len(names) > 1) + list(names[-1:]))


def _number(value: float, unit: Unit) -> str:
    return f"{100 * value:.0f}" if unit == "share" else f"{value:.2f}"
