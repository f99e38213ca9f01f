"""Pictures of many requests, drawn together."""

import asyncio
import collections
import concurrent.futures
import time
from typing import NamedTuple


class Busy(Exception):
    """Too many pictures wait already, or the service stops."""


class Job(NamedTuple):
    """A picture that somebody waits for, perhaps on the way to another sentence."""

    prompt: str
    seed: int
    truncation: float = 1.0
    other: str | None = None
    weight: float = 0.0


class Batcher:
    """Collects pictures until there are enough, or one has waited long enough.

    Args:
        draw: callable of a list of `Job`. Returns a sequence of images, one each. It
            runs in a thread of its own, never twice at a time.
        batch_size: int. The most pictures drawn together.
        max_wait: float. Seconds that a picture may wait for company.
        max_queue: int. The most pictures that wait.
        on_batch: callable of the number of pictures and the seconds that they took.
    """

    def __init__(
        self,
        draw,
        batch_size=8,
        max_wait=0.01,
        max_queue=256,
        on_batch=lambda count, seconds: None,
    ):
        self._draw = draw
        self._batch_size = batch_size
        self._max_wait = max_wait
        self._max_queue = max_queue
        self._on_batch = on_batch
        self._waiting = collections.deque()
        self._arrived = asyncio.Event()
        self._is_stopping = False
        self._executor = concurrent.futures.ThreadPoolExecutor(1, "galip-draw")
        self._task = None

    @property
    def waiting(self):
        """How many pictures wait to be drawn."""
        return len(self._waiting)

    def start(self):
        """Begins to draw. Called in the event loop that requests are served by."""
        self._task = asyncio.create_task(self._run())

    async def stop(self):
        """Takes no more, and draws what waits."""
        self._is_stopping = True
        self._arrived.set()
        await self._task
        self._executor.shutdown()

    async def submit(self, jobs):
        """Draws pictures.

        Args:
            jobs: list of `Job`.

        Returns:
            A list of images.

        Raises:
            Busy: where they would wait too long.
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
            # Whoever went away is not drawn for.
            for future in futures:
                future.cancel()

    async def draw(self, jobs):
        """Draws pictures next, whatever waits: to warm up."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, self._draw, jobs)

    async def _run(self):
        while not (self._is_stopping and not self._waiting):
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                await self._company()
                await self._draw_some()

    async def _company(self):
        """Waits until there are enough, or the first has waited long enough."""
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

    async def _draw_some(self):
        batch = []
        while self._waiting and len(batch) < self._batch_size:
            job, future, _ = self._waiting.popleft()
            if not future.done():
                batch.append((job, future))
        if not batch:
            return
        jobs, futures = zip(*batch, strict=True)
        start = time.perf_counter()
        try:
            images = await self.draw(jobs)
        except Exception as error:
            images = [error] * len(jobs)
        self._on_batch(len(jobs), time.perf_counter() - start)
        for future, image in zip(futures, images, strict=True):
            if future.done():
                continue
            if isinstance(image, Exception):
                future.set_exception(image)
            else:
                future.set_result(image)
