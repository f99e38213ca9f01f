"""Does the jobs of many requests together."""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import time
from collections.abc import Callable, Sequence
from typing import Any


class Busy(Exception):
    """Too many jobs are waiting, or the service is stopping."""


class Batcher:
    """Collects jobs until a batch is full, or the first has waited long enough.

    Args:
        draw: callable. Takes a sequence of jobs, of any kinds, and returns a result for
            each. It runs in a separate thread, one call at a time.
        batch_size: int. The most jobs done together.
        max_wait: float. Seconds that a job may wait for others.
        max_queue: int. The most jobs that may wait.
        on_batch: callable. Called after each batch with its jobs and the seconds it
            took.
    """

    def __init__(
        self,
        draw: Callable[[Sequence[Any]], Sequence[Any]],
        batch_size: int = 8,
        max_wait: float = 0.01,
        max_queue: int = 256,
        on_batch: Callable[[Sequence[Any], float], Any] = lambda jobs, seconds: None,
    ) -> None:
        self._draw = draw
        self._batch_size = batch_size
        self._max_wait = max_wait
        self._max_queue = max_queue
        self._on_batch = on_batch
        self._waiting: collections.deque[tuple[Any, asyncio.Future, float]]
        self._waiting = collections.deque()
        self._arrived = asyncio.Event()
        self._is_stopping = False
        self._executor = concurrent.futures.ThreadPoolExecutor(1, "galip-draw")
        self._task: asyncio.Task | None = None

    @property
    def waiting(self) -> int:
        """The number of jobs that wait."""
        return len(self._waiting)

    def start(self) -> None:
        """Start drawing. Call it in the event loop that serves the requests."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Accept no more jobs, and do those that wait."""
        self._is_stopping = True
        self._arrived.set()
        if self._task is not None:
            await self._task
        self._executor.shutdown()

    async def submit(self, jobs: Sequence[Any]) -> list[Any]:
        """Queue jobs and wait until they are done.

        Args:
            jobs: sequence of jobs.

        Returns:
            A list of their results.

        Raises:
            Busy: if the queue is full or the service is stopping.
        """
        if self._is_stopping or self.waiting + len(jobs) > self._max_queue:
            raise Busy
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in jobs]
        now = time.monotonic()
        self._waiting.extend(zip(jobs, futures, [now] * len(jobs), strict=True))
        self._arrived.set()
        try:
            return await asyncio.gather(*futures)
        finally:
            # Nothing is drawn for a client that has disconnected.
            for future in futures:
                future.cancel()

    async def draw(self, jobs: Sequence[Any]) -> Sequence[Any]:
        """Do jobs at once, ahead of the queue."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, self._draw, jobs)

    async def _run(self) -> None:
        while not (self._is_stopping and not self._waiting):
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                await self._fill()
                await self._draw_some()

    async def _fill(self) -> None:
        """Wait until a batch is full, or the first has waited long enough."""
        deadline = self._waiting[0][2] + self._max_wait
        while len(self._waiting) < self._batch_size and not self._is_stopping:
            left = deadline - time.monotonic()
            if left <= 0:
                return
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), left)
            except asyncio.TimeoutError:
                return

    async def _draw_some(self) -> None:
        batch: list[tuple[Any, asyncio.Future]] = []
        while self._waiting and len(batch) < self._batch_size:
            job, future, _ = self._waiting.popleft()
            if not future.done():
                batch.append((job, future))
        if not batch:
            return
        jobs, futures = zip(*batch, strict=True)
        start = time.perf_counter()
        try:
            results: Sequence[Any] = await self.draw(jobs)
        except Exception as error:
            results = [error] * len(jobs)
        self._on_batch(jobs, time.perf_counter() - start)
        for future, result in zip(futures, results, strict=True):
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
