"""Batches the work of all sessions. Knows jobs and who executes them, not what they are for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar, overload

from auricle.engines.base import EngineError, SpeechDetector
from auricle.session.jobs import Decode, DetectSpeech, Hypothesis, Job
from auricle.worker import Worker

J = TypeVar("J")
R = TypeVar("R")


class Lane(Generic[J, R]):
    """Jobs of one kind, executed a batch at a time.

    There is no timer that waits for a batch to fill: whatever piled up while one batch was executed is the next. So a
    single job starts at once, and batches grow just as far as the load asks for.
    """

    def __init__(self, execute: Callable[[list[J]], Awaitable[Sequence[R | EngineError]]], max_batch: int) -> None:
        self._execute = execute
        self._max_batch = max_batch
        self._pending: list[tuple[J, asyncio.Future[R]]] = []
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to work. Needs a running loop."""
        self._task = asyncio.get_running_loop().create_task(self._work())

    def stop(self) -> None:
        """Stop working; jobs that wait are cancelled."""
        if self._task is not None:
            self._task.cancel()
        for _, future in self._pending:
            future.cancel()

    async def run(self, job: J) -> R:
        """Have a job executed. Raises EngineError. Cancelling the call takes back a job that has not begun."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._pending.append((job, future))
        self._arrived.set()
        return await future

    async def _work(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while batch := self._take():
                await self._execute_batch(batch)

    def _take(self) -> list[tuple[J, asyncio.Future[R]]]:
        waiting = [entry for entry in self._pending if not entry[1].done()]
        self._pending = waiting[self._max_batch :]
        return waiting[: self._max_batch]

    async def _execute_batch(self, batch: list[tuple[J, asyncio.Future[R]]]) -> None:
        futures = [future for _, future in batch]
        results: list[tuple[asyncio.Future[R], R | Exception]]
        try:
            results = list(zip(futures, await self._execute([job for job, _ in batch]), strict=True))
        except Exception as error:  # A bug in one batch must reach its sessions and not end the lane for all others.
            results = [(future, error) for future in futures]
        for future, result in results:
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)


class BatchScheduler:
    """Runs the jobs of all sessions: speech detection in a thread, decoding in the worker process.

    Speech detection has its own lane, since a batch of decoding takes a hundred times as long as a window of detection.
    """

    def __init__(self, detector: SpeechDetector, worker: Worker, max_batch: int) -> None:
        self._detector = detector
        self._worker = worker
        self._threads = {
            "detect": ThreadPoolExecutor(1, thread_name_prefix="detect"),
            "decode": ThreadPoolExecutor(1, thread_name_prefix="decode"),
        }
        self._detections: Lane[DetectSpeech, list[float]] = Lane(self._detect, max_batch=64)
        self._decodings: Lane[Decode, Hypothesis] = Lane(self._decode, max_batch=max_batch)

    async def start(self) -> None:
        """Start the worker and wait until it is warm. Raises EngineError: its models can't be loaded."""
        await self._in_thread("detect", self._detector.load)
        await self._in_thread("decode", self._worker.start)
        self._detections.start()
        self._decodings.start()

    async def stop(self) -> None:
        """End the worker; what is not finished is cancelled."""
        self._detections.stop()
        self._decodings.stop()
        for threads in self._threads.values():
            threads.shutdown(wait=False, cancel_futures=True)
        await asyncio.get_running_loop().run_in_executor(None, self._worker.stop)

    @overload
    async def run(self, job: DetectSpeech) -> list[float]: ...
    @overload
    async def run(self, job: Decode) -> Hypothesis: ...
    async def run(self, job: Job) -> list[float] | Hypothesis:
        """Have a job executed together with others. Raises EngineError."""
        match job:
            case DetectSpeech():
                return await self._detections.run(job)
            case Decode():
                return await self._decodings.run(job)

    def release(self, session_id: str) -> None:
        """Forget what speech detection keeps for a session that has ended."""
        self._threads["detect"].submit(self._detector.release, session_id)

    async def _detect(self, jobs: list[DetectSpeech]) -> list[list[float]]:
        return await self._in_thread("detect", self._detector.detect, jobs)

    async def _decode(self, jobs: list[Decode]) -> Sequence[Hypothesis | EngineError]:
        return await self._in_thread("decode", self._worker.decode, jobs)

    async def _in_thread(self, name: str, function: Callable[..., R], *arguments: object) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._threads[name], function, *arguments)
