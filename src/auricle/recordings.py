"""Recordings that clients send whole, transcribed in processes of their own beside realtime work.

Such a process reads files that anybody can have made and computes as fast as it can. So it is apart from the server and
from the worker of the realtime sessions, and the operating system gives it only what those leave over.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from multiprocessing.reduction import recv_handle, send_handle
from typing import BinaryIO, TypeVar

from auricle.audio.files import iter_audio
from auricle.audio.formats import SAMPLE_RATE, Samples
from auricle.engines.base import Engine, EngineError, ModelSpec
from auricle.engines.registry import Catalog, load_engine
from auricle.engines.silero import SileroDetector
from auricle.errors import ClientError, ModelUnavailable, Unavailable
from auricle.protocol.config import ServerVad, Transcription
from auricle.transcribe import Segment, transcribe

logger = logging.getLogger(__name__)

R = TypeVar("R")

BLOCK_S = 30.0
"""Audio that is read at a time, and after which a process tells how far it has come."""
START_TIMEOUT_S = 120.0
"""Longest time until a process is there, and until it has a model."""
BLOCK_TIMEOUT_S = 600.0
"""A process that says nothing for so long counts as hung. Where others need the cores, it hardly gets on."""
IDLE_S = 300.0
"""A process that has had nothing to do for so long is ended: it holds the models' memory."""
_LOWEST_PRIORITY = 19


@dataclass(frozen=True, slots=True)
class RecordingLimits:
    """What recordings may take of the server."""

    processes: int
    """How many recordings are transcribed at a time; each has one thread."""
    max_waiting: int
    """How many more may wait, or be on their way to the server."""
    max_recording_s: float


@dataclass(frozen=True, slots=True)
class Recording:
    """How a recording is to be transcribed."""

    options: Transcription
    turn_detection: ServerVad
    """Where it is cut into segments."""
    with_words: bool = False
    """Whether it is to be found out when each word was said."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The model is there."""


@dataclass(frozen=True, slots=True)
class Heard:
    """So much of a recording was read."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Done:
    """There is no more of a recording."""


Message = Loaded | Segment | Heard | Done | ClientError | EngineError
"""What a process says."""


class RecordingTranscriber:
    """A pool of processes that transcribe recordings. Owned by the server; all methods run on its event loop.

    Processes are started when they are needed first, and one that has long had nothing to do is ended.
    """

    def __init__(self, models: Catalog, limits: RecordingLimits) -> None:
        self._models = models
        self._limits = limits
        self._free = asyncio.Semaphore(limits.processes)
        self._admitted = 0
        self._idle: list[tuple[_Process, asyncio.TimerHandle]] = []
        self._busy: set[_Process] = set()
        self._threads = ThreadPoolExecutor(limits.processes, thread_name_prefix="recordings")

    @contextmanager
    def place(self) -> Iterator[None]:
        """Keep a place for a recording, from before it is sent. Raises Unavailable: too many others have one."""
        if self._admitted >= self._limits.processes + self._limits.max_waiting:
            raise Unavailable("The server has more recordings to transcribe than it can. Try again later.")
        self._admitted += 1
        try:
            yield
        finally:
            self._admitted -= 1

    async def transcribe(self, file: BinaryIO, recording: Recording) -> AsyncGenerator[Segment | Heard, None]:
        """The segments of a file, and between them how far it was read: to its end, at last.

        `file` has a descriptor and is read from its start. Closing the iterator ends the work. Raises ClientError: it
        can't be read or is too long; EngineError.
        """
        await self._free.acquire()
        try:
            process = self._take_process()
            try:
                await self._in_thread(process.begin, file.fileno(), recording)
                timeout_s = START_TIMEOUT_S
                while True:
                    message = await self._in_thread(process.receive, timeout_s)
                    timeout_s = BLOCK_TIMEOUT_S
                    if isinstance(message, Loaded):
                        continue
                    if isinstance(message, Segment | Heard):
                        yield message
                        continue
                    self._put_back(process)
                    if not isinstance(message, Done):
                        raise message
                    return
            finally:
                if process in self._busy:  # it failed, or nobody wants the rest
                    self._busy.discard(process)
                    process.kill()
        finally:
            self._free.release()

    def stop(self) -> None:
        """End all processes, in the middle of their work if need be."""
        for process, timer in self._idle:
            timer.cancel()
            process.kill()
        for process in self._busy:
            process.kill()
        self._idle.clear()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _take_process(self) -> _Process:
        while self._idle:
            process, timer = self._idle.pop()
            timer.cancel()
            if process.is_alive:
                break
        else:
            process = _Process(self._models, self._limits)
        self._busy.add(process)
        return process

    def _put_back(self, process: _Process) -> None:
        self._busy.discard(process)
        timer = asyncio.get_running_loop().call_later(IDLE_S, self._end, process)
        self._idle.append((process, timer))

    def _end(self, process: _Process) -> None:
        self._idle = [entry for entry in self._idle if entry[0] is not process]
        process.kill()

    async def _in_thread(self, function: Callable[..., R], *arguments: object) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)


class _Process:
    """One process and the pipe to it. One thread at a time uses it; any may `kill`."""

    def __init__(self, models: Catalog, limits: RecordingLimits) -> None:
        self._is_loaded = False
        self._is_killed = False
        context = multiprocessing.get_context("spawn")
        self._pipe, self._theirs = context.Pipe()
        arguments = (self._theirs, models, limits.max_recording_s)
        self._process = context.Process(target=_serve, args=arguments, name="auricle-recordings", daemon=True)
        self._has_started = threading.Lock()

    @property
    def is_alive(self) -> bool:
        """Whether it can be given more work."""
        return self._process.is_alive()

    def begin(self, descriptor: int, recording: Recording) -> None:
        """Give it a recording. Raises EngineError: it is of no use."""
        try:
            if not self._is_loaded:
                self._start()
            self._pipe.send(recording)
            assert self._process.pid is not None
            send_handle(self._pipe, descriptor, self._process.pid)
        except (OSError, RuntimeError) as error:  # RuntimeError: on macOS it must confirm that it has the file
            raise EngineError("The process for recordings has ended.") from error

    def receive(self, timeout_s: float) -> Message:
        """What it says next. Raises EngineError: it died or hangs."""
        try:
            if not self._pipe.poll(timeout_s):
                raise EngineError("The speech engine takes too long over this recording.")
            message: Message = self._pipe.recv()
        except (EOFError, OSError):
            raise EngineError("The speech engine stopped on this recording.") from None
        return message

    def kill(self) -> None:
        """End it: it keeps nothing that an orderly end would save."""
        with self._has_started:
            self._is_killed = True
            if self._process.pid is not None:
                self._process.kill()
                self._process.join()
        # The pipe stays open: a thread may be reading it, and closed it could become somebody else's.

    def _start(self) -> None:
        with self._has_started:
            if self._is_killed:
                raise EngineError("The server is shutting down.")
            self._process.start()
            self._theirs.close()
        if not self._pipe.poll(START_TIMEOUT_S):
            raise EngineError("The process for recordings does not start.")
        try:
            self._pipe.recv()
        except EOFError:
            raise EngineError("The process for recordings did not start.") from None
        self._is_loaded = True


def _serve(pipe: Pipe, models: Catalog, max_recording_s: float) -> None:
    """The life of a process: answer recording after recording until the other end goes away."""
    # Signals often reach the whole process group; the server decides when its processes end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.nice(_LOWEST_PRIORITY)
    detector, engines = SileroDetector.embedded(), dict[str, Engine]()
    # The server may be gone at any time, and then there is nobody to work for.
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        pipe.send(None)
        while True:
            recording: Recording = pipe.recv()
            with os.fdopen(recv_handle(pipe), "rb") as file:
                blocks = _told(iter_audio(file, BLOCK_S), max_recording_s, pipe.send)
                try:
                    engine = _engine(models.spec(recording.options.model), engines)
                    pipe.send(Loaded())
                    for segment in transcribe(
                        blocks,
                        recording.options,
                        detector,
                        engine,
                        recording.turn_detection,
                        with_words=recording.with_words,
                    ):
                        pipe.send(segment)
                except (ClientError, EngineError) as error:
                    pipe.send(error)
                else:
                    pipe.send(Done())


def _engine(spec: ModelSpec, engines: dict[str, Engine]) -> Engine:
    """The engine of a model, loaded when it is needed first. Raises ModelUnavailable: it can't be."""
    if spec.name not in engines:
        try:
            engines[spec.name] = load_engine(spec, threads=1)
        except EngineError as error:
            raise ModelUnavailable(str(error), "model") from error
    return engines[spec.name]


def _told(blocks: Iterable[Samples], max_recording_s: float, tell: Callable[[Heard], None]) -> Iterator[Samples]:
    """The same blocks, and `tell` hears how far they go. Raises ClientError: that is too far."""
    seconds = 0.0
    for block in blocks:
        seconds += block.size / SAMPLE_RATE
        if seconds > max_recording_s:
            message = f"The recording is longer than {max_recording_s:g} s, the longest that this server takes."
            raise ClientError("invalid_value", message, "file")
        tell(Heard(seconds))
        yield block
