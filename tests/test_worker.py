"""The supervised process: a real one, or where it must misbehave in its own way, one that plays a part."""

from __future__ import annotations

import os
import pickle
import signal
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

import numpy as np
import psutil
import pytest
from clips import two_cities
from fakes import OPTIONS, LengthEngine

from auricle.engines.base import Align, Alignment, Decode, EngineError, Hypothesis
from auricle.engines.registry import catalog
from auricle.protocol.config import Transcription
from auricle.session.jobs import Job
from auricle.settings import DEFAULT_MODEL, Settings
from auricle.worker import Worker, WorkerSpec, _decode_batch

MODEL = catalog(Settings()).spec(DEFAULT_MODEL)


def spec(decode_timeout_s: float = 60, start_timeout_s: float = 120) -> WorkerSpec:
    return WorkerSpec(MODEL, 1, decode_timeout_s, start_timeout_s)


@pytest.fixture(scope="module")
def warm_worker() -> Iterator[Worker]:
    """One process for the tests, which leave it in working order."""
    worker = Worker(spec())
    worker.start()
    yield worker
    worker.stop()


def job(name: str = "item_1", seconds: float = 3.0) -> Decode:
    return Decode(name, Transcription(model=DEFAULT_MODEL), two_cities()[: round(seconds * 16_000)])


def text_of(result: Hypothesis | EngineError) -> str:
    assert isinstance(result, Hypothesis), result
    return "".join(token.text for token in result.committed)


def decode_meanwhile(worker: Worker, jobs: list[Decode], event: Callable[[int], None]) -> list:
    """Decode while something happens to the process, which has the number given."""
    pid = worker.pid
    assert pid is not None
    results: list = []
    os.kill(pid, signal.SIGSTOP)  # so that it surely happens in the middle of the work
    thread = threading.Thread(target=lambda: results.extend(worker.decode(jobs)))
    thread.start()
    event(pid)
    thread.join()
    return results


def test_a_batch_has_a_result_per_job_in_order(warm_worker: Worker) -> None:
    results = warm_worker.decode([job("a", 3), job("b", 0.5), job("c", 3)])
    assert "best of times" in text_of(results[0])
    assert text_of(results[0]) == text_of(results[2])
    assert len(text_of(results[1])) < len(text_of(results[0]))


def test_a_process_killed_in_its_work_is_replaced_and_the_work_repeated(warm_worker: Worker) -> None:
    jobs = [job("a", 3), job("b", 2)]
    expected = [text_of(result) for result in warm_worker.decode(jobs)]
    before = warm_worker.pid
    results = decode_meanwhile(warm_worker, jobs, lambda pid: os.kill(pid, signal.SIGKILL))
    assert [text_of(result) for result in results] == expected
    assert warm_worker.pid not in (None, before)


def test_a_process_that_died_between_batches_is_replaced(warm_worker: Worker) -> None:
    assert warm_worker.pid is not None
    process = psutil.Process(warm_worker.pid)
    process.kill()
    psutil.wait_procs([process])
    assert "best of times" in text_of(warm_worker.decode([job()])[0])


def test_a_process_that_hangs_is_replaced() -> None:
    """Stopped, it doesn't even read the job, which is larger than the pipe."""
    worker = Worker(spec(decode_timeout_s=5))
    worker.start()
    try:
        results = decode_meanwhile(worker, [job(seconds=20)], lambda pid: None)
        assert text_of(results[0])
    finally:
        worker.stop()


def test_stop_ends_the_process() -> None:
    worker = Worker(spec())
    worker.start()
    assert worker.pid is not None
    process = psutil.Process(worker.pid)
    assert process.is_running()
    worker.stop()
    assert not process.is_running()
    assert worker.pid is None
    worker.stop()


def test_a_stopped_worker_refuses_work() -> None:
    worker = Worker(spec())
    worker.start()
    worker.stop()
    (result,) = worker.decode([job()])
    assert isinstance(result, EngineError)
    assert worker.pid is None


def test_a_process_that_does_not_get_ready_is_an_error() -> None:
    worker = Worker(spec(start_timeout_s=0.01))
    with pytest.raises(EngineError, match=r"did not start: no answer within 0\.01 s"):
        worker.start()
    assert worker.pid is None


def test_texts_and_times_are_found_in_one_batch(warm_worker: Worker) -> None:
    decode = job("a")
    (found,) = warm_worker.decode([decode])
    assert isinstance(found, Hypothesis)
    align = Align("a", decode.options, decode.samples, found.committed)
    one, text, other = warm_worker.decode([align, job("b"), align])
    assert isinstance(one, Alignment)
    assert one == other
    assert len(one.spans) == len(found.committed)
    assert "best of times" in text_of(text)


def test_an_engine_that_cannot_tell_times_fails_those_jobs_alone() -> None:
    jobs = [job("a"), Align("a", OPTIONS, np.zeros(1_600, np.float32), ()), job("b")]
    one, times, other = _decode_batch(LengthEngine(), jobs)
    assert isinstance(times, EngineError)
    assert text_of(one) == text_of(other) == "48000 samples"


def test_a_failure_inside_the_engine_is_that_of_its_batch(warm_worker: Worker) -> None:
    """A bug in it must not end the server."""
    broken = replace(job("bad"), samples=None)  # type: ignore[arg-type]
    results = warm_worker.decode([broken, job("good")])
    assert isinstance(results[0], EngineError)
    assert "best of times" in text_of(results[1])
    assert "best of times" in text_of(warm_worker.decode([job()])[0])


def test_jobs_travel_between_processes_as_they_are() -> None:
    sent: Job = job(seconds=0.1)
    assert isinstance(sent, Decode)
    received = pickle.loads(pickle.dumps(sent))
    assert (received.stream_id, received.options, received.stage) == (sent.stream_id, sent.options, sent.stage)
    np.testing.assert_array_equal(received.samples, sent.samples)


# Processes that play a part


def play(parts: Sequence[str], starts: Path, pipe: Pipe, _: WorkerSpec) -> None:
    """In place of the worker process: the part of this start, or the last. `starts` has a line for each."""
    with starts.open("a") as file:
        file.write(f"{os.getpid()}\n")
    part = parts[min(len(starts.read_text().splitlines()), len(parts)) - 1]
    if part == "hangs":
        signal.pause()
    if part == "dies":
        os._exit(1)
    pipe.send(None)
    with suppress(EOFError, OSError):
        while jobs := pipe.recv():
            if part == "answers half":
                os.write(pipe.fileno(), struct.pack("!i", 1000) + b"half")
                signal.pause()
            if part == "dies of 'poison'" and any(job.stream_id == "poison" for job in jobs):
                os._exit(1)
            pipe.send(LengthEngine().decode(jobs))


@pytest.fixture
def starts(tmp_path: Path) -> Path:
    """Where the processes write that they were started."""
    return tmp_path / "starts"


@pytest.fixture
def worker_playing(starts: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Worker]]:
    """Makes workers of which each process plays the next part."""
    made: list[Worker] = []

    def make(*parts: str, decode_timeout_s: float = 60) -> Worker:
        monkeypatch.setattr("auricle.worker._serve", partial(play, parts, starts))
        made.append(Worker(spec(decode_timeout_s)))
        return made[-1]

    yield make
    for worker in made:
        worker.stop()


def kill(worker: Worker) -> None:
    """Kill the process, and wait until it is gone."""
    assert worker.pid is not None
    process = psutil.Process(worker.pid)
    process.kill()
    psutil.wait_procs([process])


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120  # seven processes, on a busy machine
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def starts_in(starts: Path) -> int:
    return len(starts.read_text().splitlines()) if starts.exists() else 0


def test_a_process_that_stops_amid_its_answer_is_replaced(worker_playing: Callable[..., Worker]) -> None:
    worker = worker_playing("answers half", "works", decode_timeout_s=1)
    worker.start()
    assert text_of(worker.decode([job(seconds=1)])[0]) == "16000 samples"


def test_a_process_that_ends_is_replaced_without_a_job(worker_playing: Callable[..., Worker], starts: Path) -> None:
    worker = worker_playing("works")
    worker.start()
    before_s = worker.works_since_s
    assert before_s < time.monotonic()
    kill(worker)
    wait_until(lambda: starts_in(starts) == 2)
    wait_until(lambda: before_s < worker.works_since_s < time.monotonic())
    assert text_of(worker.decode([job(seconds=1)])[0]) == "16000 samples"
    assert starts_in(starts) == 2


def test_a_process_that_dies_while_loading_costs_no_item(worker_playing: Callable[..., Worker], starts: Path) -> None:
    worker = worker_playing("works", "dies", "dies", "works")
    worker.start()
    kill(worker)
    assert text_of(worker.decode([job(seconds=1)])[0]) == "16000 samples"
    assert starts_in(starts) == 4


def test_a_process_that_hangs_while_loading_again_is_given_less_time(
    worker_playing: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two minutes are for the first start."""
    monkeypatch.setattr("auricle.worker.LEAST_RESTART_S", 0.5)
    monkeypatch.setattr("auricle.worker.RESTART_FACTOR", 1)
    worker = worker_playing("works", "hangs", "works")
    worker.start()
    kill(worker)
    assert text_of(worker.decode([job(seconds=1)])[0]) == "16000 samples"


def test_jobs_fail_if_no_process_can_be_had_and_are_done_again_once_one_can(
    worker_playing: Callable[..., Worker],
) -> None:
    worker = worker_playing("works", *["dies"] * 6, "works")  # three tries for the job, and three for the next
    worker.start()
    kill(worker)
    results: list[Hypothesis | EngineError] = []
    wait_until(lambda: results.extend(worker.decode([job(seconds=1)])) or isinstance(results[-1], Hypothesis))
    assert str(results[0]) == "The speech engine can't be started."


def test_a_job_that_kills_the_process_fails_alone(worker_playing: Callable[..., Worker], starts: Path) -> None:
    worker = worker_playing("dies of 'poison'")
    worker.start()
    before, poison, after = worker.decode([job(name, seconds=1) for name in ("before", "poison", "after")])
    assert text_of(before) == text_of(after) == "16000 samples"
    assert str(poison) == "The speech engine stopped on this audio."
    assert starts_in(starts) == 3
    worker.decode([job("poison", seconds=1)])
    wait_until(lambda: starts_in(starts) == 5)  # one for the second try, and one for a job that has not come yet
    assert text_of(worker.decode([job(seconds=1)])[0]) == "16000 samples"


def test_an_unloaded_process_comes_back_with_the_next_job(worker_playing: Callable[..., Worker], starts: Path) -> None:
    threads = set(threading.enumerate())
    worker = worker_playing("works")
    worker.start()
    worker.unload()
    assert (worker.pid, worker.works_since_s) == (None, float("inf"))
    for thread in set(threading.enumerate()) - threads:  # nobody takes its end for a crash
        thread.join()
    assert starts_in(starts) == 1
    worker.unload()
    assert text_of(worker.decode([job(seconds=1)])[0]) == "16000 samples"
    worker.start()  # it is there
    assert starts_in(starts) == 2
    worker.unload()
    worker.start()
    assert starts_in(starts) == 3


def test_stop_ends_a_process_that_loads(worker_playing: Callable[..., Worker], starts: Path) -> None:
    worker = worker_playing("hangs")
    errors: list[EngineError] = []

    def start() -> None:
        with pytest.raises(EngineError) as caught:
            worker.start()
        errors.append(caught.value)

    thread = threading.Thread(target=start)
    thread.start()
    wait_until(lambda: starts_in(starts))
    worker.stop()
    thread.join()
    assert "did not start" in str(errors[0])
    assert starts_in(starts) == 1


def test_stop_ends_a_process_that_is_started_again(worker_playing: Callable[..., Worker], starts: Path) -> None:
    threads = set(threading.enumerate())
    worker = worker_playing("works", "hangs")
    worker.start()
    kill(worker)
    wait_until(lambda: starts_in(starts) == 2)
    worker.stop()
    for thread in set(threading.enumerate()) - threads:
        thread.join()
    assert worker.pid is None
    assert worker.works_since_s == float("inf")
    assert starts_in(starts) == 2
