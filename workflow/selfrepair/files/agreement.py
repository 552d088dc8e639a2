"""Whether a sweep agrees with the plain model: what `agreement.json` of a model holds, in words. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def not_checked(reason: str) -> dict[str, Any]:
    """The record of a sweep that nothing was compared with."""
    return {"checked": False, "reason": reason}


def agreement_note(record: Mapping[str, Any]) -> str:
    """One sentence for findings, claims and whoever reads the results."""
    if not record["checked"]:
        return f"Not checked against the plain model: {record['reason']}."
    largest = max(record["largest_difference"].values())
    instances, heads = record["instances"], len(record["heads"])
    return (
        f"Checked against the plain model on the CPU: {instances} instance{'s' * (instances > 1)} of"
        f" {heads} head{'s' * (heads > 1)} under {record['ablation']} ablation, largest difference"
        f" {largest:.0e} logits."
    )
