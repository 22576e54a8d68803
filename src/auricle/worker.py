"""The process that models run in, and its supervision.

A model that crashes, leaks or hangs takes only this process with it: it is started again and the work repeated.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from typing import Any

from auricle.engines.base import Decode, Engine, EngineError, Hypothesis
from auricle.engines.registry import ENGINES
from auricle.protocol.config import ModelDirectory

logger = logging.getLogger(__name__)

Result = Hypothesis | EngineError


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """What a worker process is to run."""

    models: ModelDirectory
    """The models to load, and what sessions call them."""
    threads: int
    """Threads for one decoding step."""
    decode_timeout_s: float
    """Longest time for one batch."""
    start_timeout_s: float = 120.0
    """Longest time for loading and warming up."""


class WorkerDied(Exception):
    """The process ended or hung in the middle of a batch."""


class Worker:
    """A supervised process that decodes batches. Its methods block. `decode` belongs to one thread; `stop` to any."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Pipe | None = None
        self._is_stopped = False

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the process and wait until its models are warm. Raises EngineError: they can't be loaded."""
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._spec), name="auricle-worker", daemon=True)
        self._process.start()
        theirs.close()
        try:
            problem: str | None = self._receive(self._spec.start_timeout_s)
        except WorkerDied as error:
            self._end_process()
            raise EngineError(f"The worker process did not start: {error}") from error
        if problem is not None:
            self._end_process()
            raise EngineError(problem)

    def stop(self) -> None:
        """End the process for good, in the middle of a batch if need be."""
        self._is_stopped = True
        self._end_process()

    def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            # It keeps nothing that an orderly end would save, and one that hangs would heed nothing weaker.
            process.kill()
            process.join()

    def decode(self, jobs: Sequence[Decode]) -> list[Result]:
        """One result per job, in order. If the process dies, each job is tried once more, alone."""
        try:
            return self._exchange(jobs)
        except WorkerDied as error:
            logger.warning("The worker process is started again: %s", error)
        return [self._decode_alone(job) for job in jobs]

    def _decode_alone(self, job: Decode) -> Result:
        # Only a job that kills a fresh process by itself is to blame for it; its neighbours in the batch are not.
        try:
            if self._is_stopped:
                return EngineError("The server is shutting down.")
            if self._process is None:
                self.start()
            return self._exchange([job])[0]
        except WorkerDied as error:
            logger.error("Item %s is given up: %s", job.stream_id, error)
            return EngineError("The speech engine stopped on this audio.")
        except EngineError as error:
            return error

    def _exchange(self, jobs: Sequence[Decode]) -> list[Result]:
        try:
            assert self._pipe is not None, "start() comes first"
            try:
                self._pipe.send(list(jobs))
            except OSError:
                raise WorkerDied("it has ended") from None
            results: list[Result] = self._receive(self._spec.decode_timeout_s)
            return results
        except WorkerDied:
            self._end_process()
            raise

    def _receive(self, timeout_s: float) -> Any:
        assert self._pipe is not None
        try:
            if not self._pipe.poll(timeout_s):
                raise WorkerDied(f"no answer within {timeout_s:g} s")
            return self._pipe.recv()
        except (EOFError, OSError):
            raise WorkerDied("it ended in the middle of its work") from None


def _serve(pipe: Pipe, spec: WorkerSpec) -> None:
    """The worker process: load, say so, then answer batches until the other end goes away."""
    # Signals often reach the whole process group; the server decides when its worker ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        engines = {model.name: ENGINES[model.name].load(spec.threads) for model in spec.models.models}
    except EngineError as error:
        pipe.send(str(error))
        return
    # The server may be gone at any time, and then there is nobody to work for.
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        pipe.send(None)
        while True:
            pipe.send(_decode_batch(engines, spec.models, pipe.recv()))


def _decode_batch(engines: dict[str, Engine], models: ModelDirectory, jobs: Sequence[Decode]) -> list[Result]:
    """Decode each job with the engine of its model; one result per job, in order."""
    by_model: dict[str, list[Decode]] = {}
    for job in jobs:
        model = models.find(job.options.model)
        assert model is not None, "the dialect has checked the name"
        by_model.setdefault(model.name, []).append(job)
    results: dict[str, Result] = {}
    for name, batch in by_model.items():
        try:
            hypotheses: Sequence[Result] = engines[name].decode(batch)
        except EngineError as error:
            hypotheses = [error] * len(batch)
        results.update((job.stream_id, result) for job, result in zip(batch, hypotheses, strict=True))
    return [results[job.stream_id] for job in jobs]
