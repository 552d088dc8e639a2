"""What fits into a device's memory, and what happens when it does not."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from .errors import InputError

Result = TypeVar("Result")

log = logging.getLogger(__name__)


def attempt(work: Callable[[], Result]) -> Result | None:
    """The result of some work, or None, with everything released, if memory ran out."""
    try:
        return work()
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
    gc.collect()  # the failed work's tensors, out of reach only now that its traceback is gone
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    # On a CPU torch and oneDNN raise plain RuntimeErrors.
    said = ("can't allocate memory", "not enough memory", "could not create a primitive")
    return any(text in str(error) for text in said)


class Room:
    """How much is worked on at once: as planned, halved whenever memory runs out.

    what: "prompts recorded" or "tokens replayed", for what is said about it.
    """

    def __init__(self, size: int, *, what: str, device: torch.device) -> None:
        self.size, self._what, self._device = size, what, device

    def halve(self, failed: int, *, least: int) -> None:
        """Go on with half of what did not fit.

        Raises:
            InputError: what did not fit is the least that can be done at once.
        """
        if failed <= least:
            raise InputError(
                f"out of memory on {self._device} with {failed} {self._what} at once, the least "
                "possible; use a smaller dtype, shorter prompts, or a device with more memory"
            )
        half = max(least, failed // 2)
        if half < self.size:
            self.size = half
            log.warning(
                "out of memory on %s with %d %s at once: going on with %d",
                self._device,
                failed,
                self._what,
                half,
            )
