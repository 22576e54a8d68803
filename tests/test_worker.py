"""The supervised process, a real one."""

from __future__ import annotations

import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator

import numpy as np
import psutil
import pytest
from clips import two_cities

from auricle.engines.base import Decode, EngineError, Hypothesis
from auricle.engines.registry import model_directory
from auricle.protocol.config import Transcription
from auricle.session.jobs import Job
from auricle.settings import DEFAULT_MODEL
from auricle.worker import Worker, WorkerSpec

MODELS = model_directory(DEFAULT_MODEL, {"whisper-1": ""})


def spec(decode_timeout_s: float = 60, start_timeout_s: float = 120) -> WorkerSpec:
    return WorkerSpec(MODELS, 1, decode_timeout_s, start_timeout_s)


@pytest.fixture(scope="module")
def warm_worker() -> Iterator[Worker]:
    """One process for the tests, which leave it in working order."""
    worker = Worker(spec())
    worker.start()
    yield worker
    worker.stop()


def job(name: str = "item_1", seconds: float = 3.0, model: str = DEFAULT_MODEL) -> Decode:
    return Decode(name, Transcription(model=model), two_cities()[: round(seconds * 16_000)], is_final=True)


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
    results = warm_worker.decode([job("a", 3), job("b", 0.5), job("c", 3, model="whisper-1")])
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
    worker = Worker(spec(decode_timeout_s=3))
    worker.start()
    try:
        results = decode_meanwhile(worker, [job(seconds=2)], lambda pid: None)  # stopped, it never answers
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


def test_a_failure_inside_the_engine_is_that_of_its_batch(warm_worker: Worker) -> None:
    """A model that is not there is a bug, since dialects check the name. It must not end the server."""
    broken = job("bad", model="nobody")
    results = warm_worker.decode([broken, job("good")])
    assert isinstance(results[0], EngineError)
    assert "best of times" in text_of(results[1])
    assert "best of times" in text_of(warm_worker.decode([job()])[0])


def test_jobs_travel_between_processes_as_they_are() -> None:
    sent: Job = job(seconds=0.1)
    assert isinstance(sent, Decode)
    received = pickle.loads(pickle.dumps(sent))
    assert (received.stream_id, received.options, received.is_final) == (sent.stream_id, sent.options, sent.is_final)
    np.testing.assert_array_equal(received.samples, sent.samples)
