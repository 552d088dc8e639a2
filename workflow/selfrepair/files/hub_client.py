"""The hub's client, whose questions end: it asks what a repository holds without any limit of time."""

from __future__ import annotations

from typing import Any

from huggingface_hub import set_client_factory
from huggingface_hub.utils._http import default_client_factory

from .patience import SILENCE


def bound_silence() -> None:
    """From now on in this process, a hub that falls silent is given up, whatever it was asked for."""
    set_client_factory(_client)


def _client() -> Any:
    client = default_client_factory()
    client.event_hooks["request"].append(_limit)
    return client


def _limit(request: Any) -> None:
    """Limits for the phases of a request that have none."""
    limits = request.extensions["timeout"]
    limits.update({phase: SILENCE for phase, seconds in limits.items() if seconds is None})
