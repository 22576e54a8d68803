"""Batches of the work of all sessions."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import numpy as np
import pytest
from fakes import MODELS, OPTIONS, LengthEngine, LoudnessDetector, LoudVoiceDetector

from auricle.audio.formats import WINDOW_SAMPLES
from auricle.engines.base import EngineError, Hypothesis
from auricle.protocol.config import NoiseReduction, Transcription
from auricle.scheduler import BatchScheduler, Lane, Residence
from auricle.session.jobs import Decode, DetectSpeech, Speech, Stage

Result = str | EngineError


class Execution:
    """Executes batches when it is told to."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self._gate = asyncio.Semaphore(0)
        self.answer: Callable[[str], Result] = str.upper

    async def __call__(self, jobs: list[str]) -> Sequence[Result]:
        self.batches.append(jobs)
        await self._gate.acquire()
        return [self.answer(job) for job in jobs]

    def let(self, batches: int = 1) -> None:
        for _ in range(batches):
            self._gate.release()


@asynccontextmanager
async def lane_of(execution: Execution, max_batch: int = 8) -> AsyncIterator[Lane[str, str]]:
    lane: Lane[str, str] = Lane(execution, max_batch)
    lane.start()
    yield lane
    lane.stop()


async def settle() -> None:
    """Let every task go on as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_single_job_starts_at_once() -> None:
    execution = Execution()
    async with lane_of(execution) as lane:
        job = asyncio.ensure_future(lane.run("a"))
        await settle()
        assert execution.batches == [["a"]]
        execution.let()
        assert await job == "A"


async def test_jobs_that_come_during_a_batch_are_the_next_one() -> None:
    execution = Execution()
    async with lane_of(execution) as lane:
        jobs = [asyncio.ensure_future(lane.run("a"))]
        await settle()
        for name in "bcd":
            jobs.append(asyncio.ensure_future(lane.run(name)))
            await settle()
        execution.let(2)
        assert await asyncio.gather(*jobs) == ["A", "B", "C", "D"]
    assert execution.batches == [["a"], ["b", "c", "d"]]


async def test_a_batch_is_no_larger_than_it_may_be() -> None:
    execution = Execution()
    execution.let(10)
    async with lane_of(execution, max_batch=2) as lane:
        assert await asyncio.gather(*(lane.run(name) for name in "abcde")) == list("ABCDE")
    assert execution.batches == [["a", "b"], ["c", "d"], ["e"]]


async def test_a_cancelled_job_is_not_executed() -> None:
    execution = Execution()
    async with lane_of(execution) as lane:
        first, second, third = (asyncio.ensure_future(lane.run(name)) for name in "abc")
        await settle()
        fourth = asyncio.ensure_future(lane.run("d"))
        fifth = asyncio.ensure_future(lane.run("e"))
        await settle()
        fourth.cancel()
        second.cancel()
        execution.let(2)
        assert await asyncio.gather(first, third, fifth) == ["A", "C", "E"]
    assert execution.batches == [["a", "b", "c"], ["e"]]


async def test_a_failure_is_that_of_its_job_alone() -> None:
    execution = Execution()
    execution.answer = lambda job: EngineError("Broken.") if job == "b" else job.upper()
    execution.let(10)
    async with lane_of(execution) as lane:
        results = await asyncio.gather(*(lane.run(name) for name in "abc"), return_exceptions=True)
    assert (results[0], results[2]) == ("A", "C")
    assert isinstance(results[1], EngineError)
    assert execution.batches == [["a", "b", "c"]]


async def test_a_bug_in_a_batch_does_not_end_the_lane() -> None:
    execution = Execution()

    def answer(job: str) -> str:
        if job == "bad":
            raise RuntimeError("a bug")
        return job.upper()

    execution.answer = answer
    execution.let(10)
    async with lane_of(execution) as lane:
        results = await asyncio.gather(lane.run("bad"), lane.run("a"), return_exceptions=True)
        assert [str(result) for result in results] == ["a bug", "a bug"]
        assert await lane.run("b") == "B"


async def test_too_few_results_do_not_end_the_lane() -> None:
    calls = 0

    async def execute(jobs: list[str]) -> list[str]:
        nonlocal calls
        calls += 1
        return [] if calls == 1 else jobs

    lane: Lane[str, str] = Lane(execute, 8)
    lane.start()
    first = asyncio.ensure_future(lane.run("a"))
    await settle()
    second = asyncio.ensure_future(lane.run("b"))
    await settle()
    assert first.done()
    with pytest.raises((ValueError, RuntimeError)):
        await first
    assert second.done()
    assert await second == "b"
    lane.stop()


async def test_stopping_cancels_what_waits() -> None:
    execution = Execution()
    async with lane_of(execution, max_batch=1) as lane:
        jobs = [asyncio.ensure_future(lane.run(name)) for name in "ab"]
        await settle()
        lane.stop()
        await settle()
        assert jobs[1].cancelled()
        jobs[0].cancel()


# Lag


class SetClock:
    """A clock that shows what it is set to."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.works_since_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@asynccontextmanager
async def timed_lane(execution: Execution, clock: SetClock, max_batch: int = 1) -> AsyncIterator[Lane[str, str]]:
    """Jobs in capital letters go first; those in small ones may wait."""
    lane: Lane[str, str] = Lane(execution, max_batch, str.islower, str.islower, lambda: clock.works_since_s, clock)
    lane.start()
    yield lane
    lane.stop()


async def submit(lane: Lane[str, str], *jobs: str) -> list[asyncio.Future[str]]:
    futures = [asyncio.ensure_future(lane.run(job)) for job in jobs]
    await settle()
    return futures


async def test_there_is_no_lag_while_nothing_waits() -> None:
    execution, clock = Execution(), SetClock()
    async with timed_lane(execution, clock) as lane:
        assert lane.lag_s == 0
        await submit(lane, "A")
        clock.now_s += 50
        assert lane.lag_s == 0  # it is worked on, however long that takes
        execution.let()
        await settle()
        assert lane.lag_s == 0


async def test_lag_is_how_long_the_oldest_job_waits() -> None:
    execution, clock = Execution(), SetClock()
    async with timed_lane(execution, clock) as lane:
        await submit(lane, "A", "B")
        clock.now_s += 2
        await submit(lane, "C")
        clock.now_s += 1
        assert lane.lag_s == 3


async def test_lag_is_over_as_long_after_the_last_wait_as_that_took() -> None:
    execution, clock = Execution(), SetClock()
    async with timed_lane(execution, clock) as lane:
        await submit(lane, "A", "B")
        clock.now_s += 3
        execution.let(2)
        await settle()
        assert lane.lag_s == 3
        clock.now_s += 2
        assert lane.lag_s == 1
        await submit(lane, "C")  # which waits for nothing, and makes it neither more nor less
        execution.let()
        await settle()
        assert lane.lag_s == 1
        clock.now_s += 1
        assert lane.lag_s == 0
        clock.now_s += 100
        assert lane.lag_s == 0


async def test_jobs_that_may_wait_are_no_lag() -> None:
    execution, clock = Execution(), SetClock()
    async with timed_lane(execution, clock) as lane:
        await submit(lane, "A", "b")
        clock.now_s += 10
        assert lane.lag_s == 0
        await submit(lane, "C")
        execution.let(2)
        await settle()
        assert execution.batches == [["A"], ["C"], ["b"]]
        assert lane.lag_s == 0


async def test_a_job_that_is_taken_back_is_no_lag() -> None:
    execution, clock = Execution(), SetClock()
    async with timed_lane(execution, clock) as lane:
        _, waiting = await submit(lane, "A", "B")
        clock.now_s += 10
        waiting.cancel()
        await settle()
        assert lane.lag_s == 0


async def test_waiting_while_nothing_can_be_executed_is_no_lag() -> None:
    """A process that is started again takes its time; what piled up meanwhile is soon done."""
    execution, clock = Execution(), SetClock()
    async with timed_lane(execution, clock) as lane:
        await submit(lane, "A", "B")
        clock.works_since_s = float("inf")
        clock.now_s += 10
        assert lane.lag_s == 0
        clock.works_since_s = clock.now_s
        clock.now_s += 1
        assert lane.lag_s == 1
        execution.let(2)
        await settle()
        assert lane.lag_s == 1


# The scheduler


class FakeWorker:
    """Decodes in the same process. Has the face of `Worker`."""

    def __init__(self, problem: str = "") -> None:
        """`problem`: why it can't be started."""
        self.engine = LengthEngine()
        self.works_since_s = math.inf
        self.calls: list[str] = []
        self.problem = problem

    @property
    def pid(self) -> int | None:
        return None if self.works_since_s == math.inf else 1

    def start(self) -> None:
        self.calls.append("start")
        if self.problem:
            raise EngineError(self.problem)
        self.works_since_s = 0.0

    def unload(self) -> None:
        self.calls.append("unload")
        self.works_since_s = math.inf

    def stop(self) -> None:
        self.calls.append("stop")

    def decode(self, jobs: Sequence[Decode]) -> list[Hypothesis]:
        self.works_since_s = 0.0
        return self.engine.decode(jobs)


def scheduler_of(
    detector: LoudnessDetector,
    workers: dict[str, FakeWorker],
    clock: Callable[[], float] = time.monotonic,
    denoised: LoudVoiceDetector | None = None,
    residences: dict[str, Residence] | None = None,
) -> BatchScheduler:
    """A scheduler with these workers, and idle ones for the other models."""
    all_workers = {model.name: FakeWorker() for model in MODELS.models} | workers
    return BatchScheduler(
        detector,
        MODELS,
        all_workers,  # type: ignore[arg-type]
        denoised=denoised,
        residences=residences,
        clock=clock,
    )


@pytest.mark.parametrize(("stage", "lag_s"), [(Stage.FINAL, 5), (Stage.PAUSE, 0), (Stage.SPEAKING, 0)])
async def test_only_the_wait_of_ended_speech_is_lag(stage: Stage, lag_s: float) -> None:
    clock, worker = SetClock(), FakeWorker()
    worker.start()
    scheduler = scheduler_of(LoudnessDetector(), {"fake/english": worker}, clock)
    task = asyncio.create_task(scheduler.run(Decode("item_1", OPTIONS, np.zeros(512, np.float32), stage)))
    await settle()  # nothing takes jobs before the start
    clock.now_s += 5
    assert scheduler.lag_s("fake/english") == lag_s
    task.cancel()
    await scheduler.stop()


async def test_the_scheduler_runs_both_kinds_of_jobs() -> None:
    detector, worker = LoudnessDetector(), FakeWorker()
    scheduler = scheduler_of(detector, {"fake/english": worker})
    await scheduler.start()
    assert detector.is_loaded
    samples = np.full(1_024, 0.5, np.float32)
    decode = Decode("item_1", OPTIONS, samples)
    heard, text = await asyncio.gather(scheduler.run(DetectSpeech("sess_1", samples)), scheduler.run(decode))
    assert heard == Speech([0.5, 0.5])
    assert "".join(token.text for token in text.committed) == "1024 samples"
    with pytest.raises(EngineError, match="The prompt asked for it"):
        await scheduler.run(Decode("item_2", OPTIONS.model_copy(update={"prompt": "fail"}), samples))
    assert (await scheduler.run(decode)).committed
    scheduler.release("sess_1")
    await scheduler.run(DetectSpeech("sess_2", samples))
    assert detector.released == ["sess_1"]
    await scheduler.stop()
    assert worker.calls == ["start", "stop"]


NEAR = NoiseReduction(type="near_field")


async def test_with_noise_reduction_speech_is_also_detected_without_the_noise() -> None:
    detector, denoised = LoudnessDetector(), LoudVoiceDetector()
    scheduler = scheduler_of(detector, {}, denoised=denoised)
    await scheduler.start()
    assert denoised.is_loaded
    samples = np.repeat(np.float32([0.5, 0.9]), WINDOW_SAMPLES)
    jobs = DetectSpeech("sess_1", samples), DetectSpeech("sess_2", samples, 0, NEAR)
    plain, reduced = await asyncio.gather(*(scheduler.run(job) for job in jobs))
    probabilities = pytest.approx([0.5, 0.9])
    assert plain == (probabilities, None)
    assert reduced == (probabilities, pytest.approx([0.0, 0.9]))
    assert denoised.batches == [["sess_2"]]
    scheduler.release("sess_2")
    await scheduler.run(DetectSpeech("sess_1", samples, 0, NEAR))
    assert detector.released == denoised.released == ["sess_2"]
    await scheduler.stop()


async def test_sessions_without_noise_reduction_do_not_wait_for_those_with() -> None:
    may_detect = threading.Event()

    class SlowDetector(LoudVoiceDetector):
        def detect(self, jobs: Sequence[DetectSpeech]) -> list[list[float]]:
            may_detect.wait()
            return super().detect(jobs)

    scheduler = scheduler_of(LoudnessDetector(), {}, denoised=SlowDetector())
    await scheduler.start()
    samples = np.full(WINDOW_SAMPLES, 0.5, np.float32)
    slow = asyncio.create_task(scheduler.run(DetectSpeech("sess_1", samples, 0, NEAR)))
    await asyncio.sleep(0)
    assert (await scheduler.run(DetectSpeech("sess_2", samples))).cleaned is None
    assert not slow.done()
    may_detect.set()
    assert (await slow).cleaned == [0.0]
    await scheduler.stop()


async def test_a_failure_without_the_noise_is_that_of_the_job() -> None:
    class BrokenDetector(LoudVoiceDetector):
        def detect(self, jobs: Sequence[DetectSpeech]) -> list[list[float]]:
            raise EngineError("Deaf.")

    scheduler = scheduler_of(LoudnessDetector(), {}, denoised=BrokenDetector())
    await scheduler.start()
    samples = np.full(WINDOW_SAMPLES, 0.5, np.float32)
    with pytest.raises(EngineError, match="Deaf"):
        await scheduler.run(DetectSpeech("sess_1", samples, 0, NEAR))
    assert (await scheduler.run(DetectSpeech("sess_1", samples))).probabilities == [0.5]
    await scheduler.stop()


class BlockedWorker(FakeWorker):
    """Decodes when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may_decode = threading.Event()

    def decode(self, jobs: Sequence[Decode]) -> list[Hypothesis]:
        self.calls.append("decode")
        self.may_decode.wait()
        return super().decode(jobs)


async def test_a_model_that_takes_long_stands_in_no_other_ones_way() -> None:
    slow, quick = BlockedWorker(), FakeWorker()
    scheduler = scheduler_of(LoudnessDetector(), {"fake/many": slow, "fake/english": quick})
    await scheduler.start()
    assert (quick.calls, slow.calls) == (["start"], [])  # which is started when it is needed
    samples = np.zeros(512, np.float32)
    waiting = asyncio.create_task(scheduler.run(Decode("item_1", Transcription(model="whisper-1"), samples)))
    assert (await scheduler.run(Decode("item_2", OPTIONS, samples))).committed
    assert not waiting.done()
    slow.may_decode.set()
    assert (await waiting).committed
    await scheduler.stop()
    assert (quick.calls, slow.calls) == (["start", "stop"], ["decode", "stop"])


# When a model is in memory

SPEECH = Decode("item_1", Transcription(model="whisper-1"), np.zeros(512, np.float32))
"""Whose model is `fake/many`."""


@asynccontextmanager
async def serving(worker: FakeWorker, residence: Residence | None = None) -> AsyncIterator[BatchScheduler]:
    """A scheduler whose model `fake/many` is this worker's."""
    residences = {"fake/many": residence} if residence else {}
    scheduler = scheduler_of(LoudnessDetector(), {"fake/many": worker}, residences=residences)
    await scheduler.start()
    yield scheduler
    await scheduler.stop()


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that is bound to happen."""
    deadline_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.005)


async def test_a_model_is_loaded_once_for_all_who_ask() -> None:
    worker = FakeWorker()
    async with serving(worker) as scheduler:
        await asyncio.gather(*(scheduler.load(name) for name in ("fake/many", "whisper-1", "whisper-1")))
        assert worker.calls == ["start"]
        await scheduler.load("whisper-1")
        assert worker.calls == ["start"]


async def test_loading_goes_on_when_nobody_waits_any_more() -> None:
    class SlowWorker(FakeWorker):
        may_start = threading.Event()

        def start(self) -> None:
            self.may_start.wait()
            super().start()

    worker = SlowWorker()
    async with serving(worker) as scheduler:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await scheduler.load("fake/many")
        worker.may_start.set()
        await scheduler.load("fake/many")
    assert worker.calls == ["start", "stop"]


async def test_a_model_that_cannot_be_loaded_is_the_error_of_all_who_ask_and_tried_again_later() -> None:
    worker = FakeWorker("It is nowhere.")
    async with serving(worker) as scheduler:
        loads = (scheduler.load(name) for name in ("fake/many", "whisper-1"))
        results = await asyncio.gather(*loads, return_exceptions=True)
        assert [str(result) for result in results] == ["It is nowhere."] * 2
        assert worker.calls == ["start"]
        worker.problem = ""
        await scheduler.load("fake/many")
        assert worker.calls == ["start", "start"]


async def test_a_model_can_be_loaded_with_the_server() -> None:
    worker = FakeWorker()
    async with serving(worker, Residence(at_start=True)):
        assert worker.calls == ["start"]


async def test_a_model_that_cannot_be_loaded_at_the_start_does_not_end_it() -> None:
    worker = FakeWorker("It is nowhere.")
    async with serving(worker, Residence(at_start=True)) as scheduler:
        assert (await scheduler.run(Decode("item_1", OPTIONS, np.zeros(512, np.float32)))).committed


async def test_the_default_model_must_be_there() -> None:
    scheduler = scheduler_of(LoudnessDetector(), {"fake/english": FakeWorker("It is nowhere.")})
    with pytest.raises(EngineError, match="nowhere"):
        await scheduler.start()
    await scheduler.stop()


async def test_a_model_that_nobody_needs_is_unloaded_and_loaded_again() -> None:
    worker = FakeWorker()
    async with serving(worker, Residence(idle_s=0.01)) as scheduler:
        await scheduler.load("fake/many")
        await until(lambda: worker.calls == ["start", "unload"])
        assert (await scheduler.run(SPEECH)).committed
        await until(lambda: worker.calls == ["start", "unload", "unload"])
        await scheduler.load("fake/many")
        assert worker.calls == ["start", "unload", "unload", "start"]


async def test_a_model_stays_while_a_session_names_it() -> None:
    worker = FakeWorker()
    async with serving(worker, Residence(idle_s=0.01)) as scheduler:
        scheduler.use("sess_1", "whisper-1")
        scheduler.use("sess_2", "fake/many")
        await scheduler.load("fake/many")
        scheduler.use("sess_1", "fake/english")
        scheduler.release("sess_3")
        await asyncio.sleep(0.05)
        assert worker.calls == ["start"]
        scheduler.release("sess_2")
        await until(lambda: worker.calls == ["start", "unload"])


async def test_a_model_stays_while_it_works() -> None:
    worker = BlockedWorker()
    async with serving(worker, Residence(idle_s=0.01)) as scheduler:
        job = asyncio.create_task(scheduler.run(SPEECH))
        await asyncio.sleep(0.05)
        assert worker.calls == ["decode"]
        worker.may_decode.set()
        assert (await job).committed
        await until(lambda: worker.calls == ["decode", "unload"])


async def test_a_job_that_comes_while_the_model_is_unloaded_is_served() -> None:
    class SlowWorker(FakeWorker):
        may_unload = threading.Event()

        def unload(self) -> None:
            self.calls.append("unloading")
            self.may_unload.wait()
            super().unload()

    worker = SlowWorker()
    async with serving(worker, Residence(idle_s=0.01)) as scheduler:
        await scheduler.load("fake/many")
        await until(lambda: "unloading" in worker.calls)
        job, load = asyncio.create_task(scheduler.run(SPEECH)), asyncio.create_task(scheduler.load("fake/many"))
        await settle()
        assert not load.done()  # it is there, but not for long
        worker.may_unload.set()
        assert (await job).committed
        await load
        assert worker.calls[:3] == ["start", "unloading", "unload"]


async def test_a_model_that_comes_when_all_have_left_is_unloaded() -> None:
    """A job can load it, too; and a process that died is replaced by itself."""

    class SlowWorker(BlockedWorker):
        pid = None

        def decode(self, jobs: Sequence[Decode]) -> list[Hypothesis]:
            self.pid = 1
            return super().decode(jobs)

        def unload(self) -> None:
            super().unload()
            self.pid = None

    worker = SlowWorker()
    async with serving(worker, Residence(idle_s=0.01)) as scheduler:
        job = asyncio.create_task(scheduler.run(SPEECH))
        await until(lambda: worker.calls == ["decode"])
        job.cancel()
        await asyncio.sleep(0.05)
        assert worker.calls == ["decode"]
        worker.may_decode.set()
        await until(lambda: worker.calls == ["decode", "unload"])
        worker.pid = 2  # not ready yet
        scheduler.use("sess_1", "fake/many")
        scheduler.release("sess_1")
        await until(lambda: worker.calls == ["decode", "unload", "unload"])


async def test_a_model_that_is_prepared_while_it_is_there_stays_for_as_long_again() -> None:
    worker = FakeWorker()
    async with serving(worker, Residence(idle_s=0.3)) as scheduler:
        scheduler.prepare("whisper-1")
        await until(lambda: worker.calls == ["start"])
        for _ in range(5):
            await asyncio.sleep(0.1)
            scheduler.prepare("whisper-1")
        assert worker.calls == ["start"]
        await until(lambda: worker.calls == ["start", "unload"])


async def test_a_model_that_is_prepared_and_not_used_is_unloaded() -> None:
    worker = FakeWorker()
    async with serving(worker, Residence(idle_s=0.01)) as scheduler:
        scheduler.prepare("whisper-1")
        await until(lambda: worker.calls == ["start", "unload"])
