"""The process that a model runs in, and its supervision.

A model that crashes, leaks, hangs or takes long takes only this process with it: it is started again and the work
repeated. Each model has one of its own, so that none stands in another's way, be it with loading or with its work.
"""

from __future__ import annotations

import logging
import math
import multiprocessing
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.connection import Connection as Pipe

from auricle.engines.base import Align, Alignment, Decode, Engine, EngineError, Hypothesis, ModelSpec, aligned
from auricle.engines.registry import load_engine

logger = logging.getLogger(__name__)

TextJob = Decode | Align
"""What a process does."""
TextResult = Hypothesis | Alignment
Result = TextResult | EngineError

RESTARTS = 3
"""How often a process may die while it loads before its jobs fail for want of one."""
LEAST_RESTART_S = 10.0
"""Least time that a restart may take; each further attempt may take twice as long, since the machine may be busy."""
RESTART_FACTOR = 5.0
"""A restart that takes so many times as long as the first start counts as hung."""


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """What a worker process is to run."""

    model: ModelSpec
    threads: int
    """Threads for one decoding step."""
    decode_timeout_s: float
    """Longest time for one batch."""
    start_timeout_s: float = 120.0
    """Longest time for loading and warming up. A restart may take less, by how long the first start took."""


class WorkerDied(Exception):
    """The process ended or hung in the middle of its work."""


class _Process:
    """One process and the pipe to it. Used by one thread; another waits in `wait_for_end`, and any may `kill`."""

    def __init__(self, spec: WorkerSpec, load_timeout_s: float) -> None:
        """Start it. It is of use once `load` has returned."""
        self._load_timeout_s = load_timeout_s
        self._decode_timeout_s = spec.decode_timeout_s
        self._deadline_s = math.inf
        """When, on the monotonic clock, it counts as hung."""
        self._is_late = False
        self.loaded_s = math.inf
        """When, on the monotonic clock, its model was warm; infinity: it isn't."""
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, spec), name="auricle-worker", daemon=True)
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int | None:
        """Its number."""
        return self._process.pid

    def load(self) -> None:
        """Wait until its model is warm. Raises EngineError: it can't be loaded; WorkerDied."""
        with self._limit(self._load_timeout_s):
            problem: str | None = self._pipe.recv()
        if problem is not None:
            raise EngineError(problem)
        self.loaded_s = time.monotonic()

    def decode(self, jobs: Sequence[TextJob]) -> list[Result]:
        """One result per job, in order. Raises WorkerDied."""
        # The limit is on sending too: the pipe takes no more than part of a long utterance from us if nobody reads.
        with self._limit(self._decode_timeout_s):
            self._pipe.send(list(jobs))
            results: list[Result] = self._pipe.recv()
        return results

    def wait_for_end(self) -> None:
        """Return when it has ended, and see to it that it does if it hangs."""
        # No limit that begins during such a wait ends before it, so none has to break it off.
        longest_s = min(self._load_timeout_s, self._decode_timeout_s)
        while not connection.wait([self._process.sentinel], min(self._time_left_s, longest_s)):
            if self._time_left_s <= 0:
                self._is_late = True
                self._process.kill()
                self._deadline_s = math.inf

    def kill(self) -> None:
        """End it. It keeps nothing that an orderly end would save, and one that hangs would heed nothing weaker."""
        self._process.kill()
        self._process.join()

    @property
    def _time_left_s(self) -> float:
        return self._deadline_s - time.monotonic()

    @contextmanager
    def _limit(self, timeout_s: float) -> Iterator[None]:
        """Have it killed if the block takes longer. Raises WorkerDied: it was, or it ended by itself."""
        self._deadline_s = time.monotonic() + timeout_s
        try:
            yield
        except (EOFError, OSError):
            problem = f"no answer within {timeout_s:g} s" if self._is_late else "it ended in the middle of its work"
            raise WorkerDied(problem) from None
        finally:
            self._deadline_s = math.inf


class Worker:
    """A supervised process that decodes batches. Its methods block, and belong to one thread but for `stop`.

    A process that ends is replaced at once, by a thread that waits for that, so that loading is in no item's latency.
    The first is started by `start`, or else with the first batch; so is the first after `unload`.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec
        self._process: _Process | None = None
        self._first_start_s: float | None = None
        """How long it took; None: it has not succeeded yet, or the process was ended since it was not needed."""
        self._is_stopped = False
        self._in_use = threading.Lock()
        """Held while a process is started or works."""
        self._change = threading.Lock()
        """Held while a process comes or goes, so that none is started after `stop`."""

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        process = self._process
        return process.pid if process else None

    @property
    def works_since_s(self) -> float:
        """When, on the monotonic clock, the process was ready for jobs; infinity: there is none that is."""
        process = self._process
        return process.loaded_s if process else math.inf

    def start(self) -> None:
        """Start the process, unless it is there, and wait until its model is warm. Raises EngineError: it can't be."""
        with self._in_use:
            if self._first_start_s is None:
                self._start_first()
            elif self._process is None:
                self._restart()

    def _start_first(self) -> None:
        began_s = time.monotonic()
        try:
            self._start(self._spec.start_timeout_s)
        except WorkerDied as error:
            raise EngineError(f"The worker process of {self._spec.model.name} did not start: {error}") from error
        self._first_start_s = time.monotonic() - began_s

    def unload(self) -> None:
        """End the process until it is needed again."""
        with self._in_use:
            self._first_start_s = None
            self._end_process()

    def stop(self) -> None:
        """End the process for good, in the middle of a batch if need be."""
        self._is_stopped = True
        self._end_process()

    def decode(self, jobs: Sequence[TextJob]) -> list[Result]:
        """One result per job, in order. If the process dies, each job is tried once more, alone."""
        with self._in_use:
            if self._first_start_s is None:
                try:
                    self._start_first()
                except EngineError as error:
                    return [error] * len(jobs)
            try:
                return self._exchange(jobs)
            except WorkerDied as error:
                logger.warning("The worker process is started again: %s", error)
            return [self._decode_alone(job) for job in jobs]

    def _decode_alone(self, job: TextJob) -> Result:
        # Only a job that kills a fresh process by itself is to blame for it; its neighbours in the batch are not.
        try:
            if self._process is None:
                self._restart()
            return self._exchange([job])[0]
        except WorkerDied as error:
            logger.error("Item %s is given up: %s", job.stream_id, error)
            return EngineError("The speech engine stopped on this audio.")
        except EngineError as error:
            return error

    def _exchange(self, jobs: Sequence[TextJob]) -> list[Result]:
        process = self._process
        if process is None:
            raise WorkerDied("there is none")
        try:
            return process.decode(jobs)
        except WorkerDied:
            self._end_process()
            raise

    def _restart(self) -> None:
        """Start a process in place of one that has ended. Raises EngineError: it can't be had."""
        limit_s = max(LEAST_RESTART_S, RESTART_FACTOR * (self._first_start_s or 0))
        for attempt in range(RESTARTS):
            try:
                self._start(min(limit_s * 2**attempt, self._spec.start_timeout_s))
                return
            except WorkerDied as error:
                logger.warning("The worker process did not start: %s", error)
        raise EngineError("The speech engine can't be started.")

    def _start(self, load_timeout_s: float) -> None:
        with self._change:
            if self._is_stopped:
                raise EngineError("The server is shutting down.")
            process = self._process = _Process(self._spec, load_timeout_s)
        threading.Thread(target=self._supervise, args=(process,), name="supervise", daemon=True).start()
        try:
            process.load()
        except (WorkerDied, EngineError):
            self._end_process()
            raise

    def _end_process(self) -> None:
        with self._change:
            process, self._process = self._process, None
        if process is not None:
            process.kill()

    def _supervise(self, process: _Process) -> None:
        """The life of a thread that goes with a process: when it has ended, have another in its place."""
        process.wait_for_end()
        with self._in_use:
            is_wanted = not self._is_stopped and self._first_start_s is not None
            if not is_wanted or process.loaded_s == math.inf or self._process not in (None, process):
                return  # none is wanted, whoever started it knows, or `decode` was quicker
            logger.warning("The worker process has ended and is started again.")
            self._end_process()
            try:
                self._restart()
            except EngineError as error:
                logger.error("%s The next job tries it again.", error)


def _serve(pipe: Pipe, spec: WorkerSpec) -> None:
    """The worker process: load, say so, then answer batches until the other end goes away."""
    # Signals often reach the whole process group; the server decides when its worker ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        engine = load_engine(spec.model, spec.threads)
    except EngineError as error:
        pipe.send(str(error))
        return
    # The server may be gone at any time, and then there is nobody to work for.
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        pipe.send(None)
        while True:
            pipe.send(_decode_batch(engine, pipe.recv()))


def _decode_batch(engine: Engine, jobs: Sequence[TextJob]) -> Sequence[Result]:
    """One result per job, in order."""
    decoded = iter(_decoded(engine, [job for job in jobs if isinstance(job, Decode)]))
    aligned = iter(_aligned(engine, [job for job in jobs if isinstance(job, Align)]))
    return [next(decoded if isinstance(job, Decode) else aligned) for job in jobs]


def _decoded(engine: Engine, jobs: Sequence[Decode]) -> Sequence[Result]:
    try:
        return engine.decode(jobs) if jobs else []
    except EngineError as error:
        return [error] * len(jobs)


def _aligned(engine: Engine, jobs: Sequence[Align]) -> Sequence[Result]:
    try:
        return aligned(engine, jobs) if jobs else []
    except EngineError as error:
        return [error] * len(jobs)
