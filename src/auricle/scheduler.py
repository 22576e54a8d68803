"""Batches the work of all sessions. Knows jobs and who executes them, not what they are for."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, overload

from auricle.engines.base import EngineError, ModelInfo, SpeechDetector, TurnJudge
from auricle.protocol.config import ModelDirectory
from auricle.session.jobs import Align, Alignment, Decode, DetectSpeech, Hypothesis, JudgeTurn, Speech, Stage
from auricle.worker import TextJob, TextResult, Worker

logger = logging.getLogger(__name__)

J = TypeVar("J")
R = TypeVar("R")


Clock = Callable[[], float]
"""Seconds since any moment."""


@dataclass(frozen=True, slots=True)
class _Entry(Generic[J, R]):
    """A job that waits."""

    job: J
    future: asyncio.Future[R]
    since_s: float


class Lane(Generic[J, R]):
    """Jobs of one kind, executed a batch at a time.

    There is no timer that waits for a batch to fill: whatever piled up while one batch was executed is the next. So a
    single job starts at once, and batches grow just as far as the load asks for.
    """

    def __init__(
        self,
        execute: Callable[[list[J]], Awaitable[Sequence[R | EngineError]]],
        max_batch: int,
        rank: Callable[[J], int] = lambda _: 0,
        may_wait: Callable[[J], bool] = lambda _: False,
        works_since: Callable[[], float] = lambda: -math.inf,
        clock: Clock = time.monotonic,
    ) -> None:
        """Of jobs that wait, those of the lowest `rank` go first, and of those the oldest.

        It is no lag if jobs of which `may_wait` is true do, nor if others do before the moment that `works_since` says.
        """
        self._execute = execute
        self._rank = rank
        self._may_wait = may_wait
        self._works_since = works_since
        self._clock = clock
        self._max_batch = max_batch
        self._pending: list[_Entry[J, R]] = []
        self._lag_end_s = 0.0
        """When the lag will be over that was seen when jobs were taken."""
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to work. Needs a running loop."""
        self._task = asyncio.get_running_loop().create_task(self._work())

    def stop(self) -> None:
        """Stop working; jobs that wait are cancelled."""
        if self._task is not None:
            self._task.cancel()
        for entry in self._pending:
            entry.future.cancel()

    @property
    def lag_s(self) -> float:
        """How long jobs wait these days: the longest of those that wait now or, a second less each second, that did."""
        now_s = self._clock()
        return max(self._longest_wait_s(self._pending, now_s), self._lag_end_s - now_s)

    async def run(self, job: J) -> R:
        """Have a job executed. Raises EngineError. Cancelling the call takes back a job that has not begun."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._pending.append(_Entry(job, future, self._clock()))
        self._arrived.set()
        return await future

    async def _work(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while batch := self._take():
                await self._execute_batch(batch)

    def _take(self) -> list[_Entry[J, R]]:
        waiting = [entry for entry in self._pending if not entry.future.done()]
        waiting.sort(key=lambda entry: self._rank(entry.job))
        batch, self._pending = waiting[: self._max_batch], waiting[self._max_batch :]
        now_s = self._clock()
        self._lag_end_s = max(self._lag_end_s, now_s + self._longest_wait_s(batch, now_s))
        return batch

    def _longest_wait_s(self, entries: Sequence[_Entry[J, R]], now_s: float) -> float:
        begins_s = (entry.since_s for entry in entries if not (entry.future.done() or self._may_wait(entry.job)))
        return max(now_s - max(min(begins_s, default=now_s), self._works_since()), 0.0)

    async def _execute_batch(self, batch: list[_Entry[J, R]]) -> None:
        futures = [entry.future for entry in batch]
        results: list[tuple[asyncio.Future[R], R | Exception]]
        try:
            results = list(zip(futures, await self._execute([entry.job for entry in batch]), strict=True))
        except Exception as error:  # A bug in one batch must reach its sessions and not end the lane for all others.
            results = [(future, error) for future in futures]
        for future, result in results:
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)


@dataclass(frozen=True, slots=True)
class Residence:
    """When a model is in memory."""

    at_start: bool = False
    """It is loaded with the server, not when it is needed first."""
    idle_s: float = math.inf
    """After so long in which nobody needed it, it is unloaded."""


class ServedModel:
    """A model that the server offers: its process, the batches of its jobs, and who needs it to be there.

    Owned by the scheduler; all methods run on the event loop. Whatever takes time is done by one thread, one after the
    other, so a job that comes while the model is being unloaded finds it loaded again.
    """

    def __init__(self, info: ModelInfo, worker: Worker, residence: Residence, clock: Clock) -> None:
        self.name = info.name
        self.residence = residence
        self._worker = worker
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=info.name)
        self.lane: Lane[TextJob, TextResult] = Lane(
            self._decode,
            max_batch=info.max_batch,
            rank=_stage,
            may_wait=lambda job: _stage(job) is not Stage.FINAL,
            # What piled up while a process was started or replaced is soon done, and no sign of too much to do.
            works_since=lambda: worker.works_since_s,
            clock=clock,
        )
        self._sessions: set[str] = set()
        """Those whose settings name it."""
        self._calls = 0
        """Of `load` and `run`, that are not answered yet, and batches that are executed."""
        self._loading: asyncio.Future[None] | None = None
        self._unloading: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def use(self, session_id: str) -> None:
        """A session's settings name it."""
        self._sessions.add(session_id)
        self._watch()

    def leave(self, session_id: str) -> None:
        """They don't any more, if they ever did."""
        if session_id in self._sessions:
            self._sessions.remove(session_id)
            self._watch()

    async def load(self) -> None:
        """Wait until it is ready for jobs; it gets so even if nobody waits. Raises EngineError: it can't be loaded."""
        with self._needed():
            self.prepare()
            if self._loading:
                await asyncio.shield(self._loading)

    def prepare(self) -> None:
        """Begin to load it unless it is there; nobody waits for that."""
        if self._loading is None and (self._unloading or self._worker.works_since_s == math.inf):
            self._loading = self._in_thread(self._worker.start)
            self._loading.add_done_callback(self._loaded)
        self._watch()

    async def run(self, job: TextJob) -> TextResult:
        """Have a job executed together with others. Raises EngineError."""
        with self._needed():
            return await self.lane.run(job)

    async def stop(self) -> None:
        """End its process; what is not finished is cancelled."""
        if self._timer:
            self._timer.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)
        await asyncio.get_running_loop().run_in_executor(None, self._worker.stop)

    async def _decode(self, jobs: list[TextJob]) -> Sequence[TextResult | EngineError]:
        with self._needed():  # also if those who wanted the batch have left: it may be loading the model
            return await self._in_thread(self._worker.decode, jobs)

    def _in_thread(self, function: Callable[..., R], *arguments: object) -> asyncio.Future[R]:
        return asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    def _loaded(self, loading: asyncio.Future[None]) -> None:
        self._loading = None
        self._watch()
        if not loading.cancelled() and (error := loading.exception()):
            # Who waits for it may have given up by now.
            logger.warning("The model %s can't be loaded: %s", self.name, error)

    @contextmanager
    def _needed(self) -> Iterator[None]:
        """It stays during the block."""
        self._calls += 1
        self._watch()
        try:
            yield
        finally:
            self._calls -= 1
            self._watch()

    def _watch(self) -> None:
        """Begin anew to wait until nobody has needed it for long enough."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if not (self._sessions or self._calls or self._loading) and self.residence.idle_s < math.inf:
            self._timer = asyncio.get_running_loop().call_later(self.residence.idle_s, self._unload)

    def _unload(self) -> None:
        if self._worker.pid is not None:  # it may be just being replaced: then it is ended once it is there
            logger.info("The model %s was not needed for %g s and is unloaded.", self.name, self.residence.idle_s)
            self._unloading = self._in_thread(self._worker.unload)
            self._unloading.add_done_callback(self._unloaded)

    def _unloaded(self, _: asyncio.Future[None]) -> None:
        self._unloading = None


class BatchScheduler:
    """Runs the jobs of all sessions: speech and turns are judged in a thread each, decoding is a worker process's.

    Each has its own lane, since judging takes a hundred times as long as detecting a window, and decoding still longer;
    so has detecting without noise, which takes twenty times as long, and only sessions that want it shall wait for it;
    and so has each model, so that none waits for another's batch.
    """

    def __init__(
        self,
        detector: SpeechDetector,
        models: ModelDirectory,
        workers: Mapping[str, Worker],
        judge: TurnJudge | None = None,
        denoised: SpeechDetector | None = None,
        residences: Mapping[str, Residence] | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        """`workers` has one for each model, by its name; `residences` has those that don't come on use and stay.

        Without a `judge`, or a detector on audio `denoised`, no session may ask for one.
        """
        self._detector = detector
        self._denoised = denoised
        self._directory = models
        self._judge = judge
        names = ("detect", "denoise", "judge")
        self._threads = {name: ThreadPoolExecutor(1, thread_name_prefix=name) for name in names}
        self._judgements: Lane[JudgeTurn, float] = Lane(self._judge_turns, max_batch=1)
        self._detections: Lane[DetectSpeech, list[float]] = Lane(self._detect, max_batch=64)
        self._denoised_detections: Lane[DetectSpeech, list[float]] = Lane(
            self._detect_denoised, max_batch=1, clock=clock
        )
        residences = residences or {}
        self._models = {
            info.name: ServedModel(info, workers[info.name], residences.get(info.name, Residence()), clock)
            for info in models.models
        }

    async def start(self) -> None:
        """Wait until the default model is warm, and those that are to be there from the start.

        Raises EngineError: the default model can't be. Without one of the others the server goes on.
        """
        await self._in_thread("detect", self._detector.load)
        if self._denoised:
            await self._in_thread("denoise", self._denoised.load)
        if self._judge:
            await self._in_thread("judge", self._judge.load)
        for lane in self._lanes:
            lane.start()
        default = self._served(self._directory.default)
        others = [model for model in self._models.values() if model.residence.at_start and model is not default]
        problem, *_ = await asyncio.gather(*(model.load() for model in (default, *others)), return_exceptions=True)
        if problem:
            raise problem

    async def stop(self) -> None:
        """End the workers; what is not finished is cancelled."""
        for lane in self._lanes:
            lane.stop()
        for threads in self._threads.values():
            threads.shutdown(wait=False, cancel_futures=True)
        for model in self._models.values():
            await model.stop()

    @overload
    async def run(self, job: DetectSpeech) -> Speech: ...
    @overload
    async def run(self, job: JudgeTurn) -> float: ...
    @overload
    async def run(self, job: Decode) -> Hypothesis: ...
    @overload
    async def run(self, job: Align) -> Alignment: ...
    async def run(self, job: DetectSpeech | JudgeTurn | TextJob) -> Speech | float | TextResult:
        """Have a job executed together with others. Raises EngineError."""
        match job:
            case DetectSpeech(noise_reduction=None):
                return Speech(await self._detections.run(job))
            case DetectSpeech():
                lanes = (self._detections, self._denoised_detections)
                return Speech(*await asyncio.gather(*(lane.run(job) for lane in lanes)))
            case JudgeTurn():
                return await self._judgements.run(job)
            case Decode() | Align():
                return await self._served(job.options.model).run(job)

    async def load(self, model: str) -> None:
        """Wait until a model, given by any of its names, is ready for jobs. Raises EngineError: it can't be loaded."""
        await self._served(model).load()

    def prepare(self, model: str) -> None:
        """Begin to load a model, given by any of its names, which will soon be needed."""
        self._served(model).prepare()

    def use(self, session_id: str, model: str | None) -> None:
        """A session's settings name this model now, or none, and need it to be there until `release`."""
        used = self._served(model) if model else None
        for other in self._models.values():
            if other is not used:
                other.leave(session_id)
        if used:
            used.use(session_id)

    @property
    def _lanes(self) -> tuple[Lane[Any, Any], ...]:
        decodings = (model.lane for model in self._models.values())
        return self._detections, self._denoised_detections, self._judgements, *decodings

    def lag_s(self, model: str) -> float:
        """How long speech that has ended waits these days for a model, given by any of its names."""
        # Taking noise out costs as much as decoding, and nothing begins for those who wait for it.
        return max(self._served(model).lane.lag_s, self._denoised_detections.lag_s)

    def _served(self, model: str) -> ServedModel:
        info = self._directory.find(model)
        assert info is not None, "the dialect has checked the name"
        return self._models[info.name]

    def release(self, session_id: str) -> None:
        """A session has ended: it needs no model, and what speech detection keeps for it can be forgotten."""
        self.use(session_id, None)
        self._threads["detect"].submit(self._detector.release, session_id)
        if self._denoised:
            self._threads["denoise"].submit(self._denoised.release, session_id)

    async def _detect(self, jobs: list[DetectSpeech]) -> list[list[float]]:
        return await self._in_thread("detect", self._detector.detect, jobs)

    async def _detect_denoised(self, jobs: list[DetectSpeech]) -> list[list[float]]:
        assert self._denoised is not None
        return await self._in_thread("denoise", self._denoised.detect, jobs)

    async def _judge_turns(self, jobs: list[JudgeTurn]) -> list[float]:
        assert self._judge is not None
        return await self._in_thread("judge", self._judge.judge, jobs)

    async def _in_thread(self, name: str, function: Callable[..., R], *arguments: object) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._threads[name], function, *arguments)


def _stage(job: TextJob) -> Stage:
    """How far the speech has come. Times of words are wanted of what has ended."""
    return job.stage if isinstance(job, Decode) else Stage.FINAL
