"""Standard error of the jobs, which are processes that inherit it: read here, line by line."""

import contextlib
import os
import threading
from collections.abc import Callable

# For lines that are still under way when the jobs have ended.
PATIENCE_SECONDS = 2


class DivertedStderr:
    """Leads what is written to a file descriptor, also by processes started meanwhile, to a function.

    screen: a stream to where the descriptor led before.
    """

    def __init__(self, descriptor: int, tell: Callable[[str], None]) -> None:
        self._descriptor, self._tell = descriptor, tell
        self.screen = os.fdopen(os.dup(descriptor), "w", encoding="utf-8", buffering=1)
        reading, writing = os.pipe()
        os.dup2(writing, descriptor)
        os.close(writing)
        self._reader = threading.Thread(target=self._read, args=(reading,), daemon=True)
        self._reader.start()

    def end(self) -> None:
        """Let the descriptor lead where it led before, once everything written so far is told."""
        os.dup2(self.screen.fileno(), self._descriptor)
        self._reader.join(PATIENCE_SECONDS)

    def _read(self, descriptor: int) -> None:
        with os.fdopen(descriptor, encoding="utf-8", errors="replace", newline="\n") as lines:
            for line in lines:
                # Of a line that was written over and over, how it looked in the end.
                text = line.rstrip().rpartition("\r")[2]
                # Read on if the screen is gone (`| head`): a job must not wait for its reader.
                with contextlib.suppress(OSError, ValueError):
                    self._tell(text)
