"""Jobs of one kind, a batch at a time, and how long they wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
from fakes import SetClock, settle

from auricle.engines.base import EngineError
from auricle.scheduler import Lane

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
