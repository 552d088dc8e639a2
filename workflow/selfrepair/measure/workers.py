"""Recordings and replays side by side on the CPU's cores.

Threads that share one operation wait for each other at its end; threads with a piece of work each do
not: SmolLM2-135M's sweep on two Zen 4 cores reached 69 % of the matrix product ceiling the one way, 76 %
the other. Which thread does which piece changes no bit of the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TypeVar

import torch

from ..model.replay import Replay

Task = TypeVar("Task")
Result = TypeVar("Result")


class Workers:
    """Replays that each work on one thread of the CPU; a single one on a GPU.

    Made by `side_by_side`; there are as many as torch has threads.
    """

    def __init__(self, replays: Sequence[Replay], executor: ThreadPoolExecutor) -> None:
        self._executor, self.count = executor, len(replays)
        self._idle: SimpleQueue[Replay] = SimpleQueue()
        for replay in replays:
            self._idle.put(replay)

    def map(
        self, work: Callable[[Replay, Task], Result], tasks: Sequence[Task]
    ) -> Iterator[Result]:
        """work(replay, task) for every task, in the order in which they end."""
        if self.count == 1:
            replay = self._idle.get()
            try:
                for task in tasks:
                    yield work(replay, task)
            finally:
                self._idle.put(replay)
            return

        def with_a_replay(task: Task) -> Result:
            replay = self._idle.get()
            try:
                return work(replay, task)
            finally:
                self._idle.put(replay)

        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # MKL has one number for all threads
        futures = [self._executor.submit(with_a_replay, task) for task in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            running = [future for future in futures if not future.cancel()]
            wait(running)
            torch.set_num_threads(threads)


@contextmanager
def side_by_side(replay: Replay, *, most: int | None = None) -> Iterator[Workers]:
    """Workers for the replays of one model, ended with the block; most: at most so many."""
    count = torch.get_num_threads() if replay.decoder.device.type == "cpu" else 1
    count = min(count, most or count)
    replays = [replay, *(replay.for_another_thread() for _ in range(count - 1))]
    # Each thread has a number of threads of its own for what it calls.
    with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as executor:
        yield Workers(replays, executor)
