"""The scheduler: which jobs go where, and when models are in memory."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import numpy as np
import pytest
from fakes import MODELS, OPTIONS, LengthEngine, LoudnessDetector, LoudVoiceDetector, SetClock, settle

from auricle.audio.formats import WINDOW_SAMPLES
from auricle.engines.base import EngineError, Hypothesis
from auricle.protocol.config import NoiseReduction, Transcription
from auricle.scheduler import BatchScheduler, Residence
from auricle.session.jobs import Decode, DetectSpeech, Speech, Stage


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
