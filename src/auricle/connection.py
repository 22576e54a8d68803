"""Runs one session over one transport: moves events and jobs, decides nothing about either."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass

import numpy as np

from auricle.audio.formats import Samples
from auricle.errors import ClientError, EngineError, Unavailable
from auricle.protocol.dialect import Dialect
from auricle.protocol.events import Append, ErrorEvent, ItemDeleted, SessionEvent
from auricle.scheduler import BatchScheduler
from auricle.session.jobs import Align, Decode, DetectSpeech, Job, JudgeTurn, LoadModel
from auricle.session.session import Output, Session
from auricle.transports.base import Transport, TransportClosed
from auricle.transports.outbox import Outbox

logger = logging.getLogger(__name__)
session_logger = logging.getLogger("auricle.sessions")

PAUSE_S = 10.0
"""Longest time for which nothing is read from a client: its pings and pongs stand in the same line as its audio."""
GOODBYE_S = 1.0
"""How long a client has to read what it was sent, and the close, before the connection is cut."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What one connection may take of the server."""

    max_session_s: float
    max_backlog_s: float
    """Seconds of audio that may wait for their text; then nothing more is read from the client until it is less."""
    max_outbox_bytes: int
    """Bytes of events that may wait for a slow client; then it is disconnected."""
    model_wait_s: float
    """Longest time for which a change of the model waits for it to be loaded."""


@dataclass(frozen=True, slots=True)
class _End:
    """How a connection ends, from our side or the client's."""

    code: int
    reason: str


_SLOW_READER = _End(1008, "Too many events wait to be read by the client.")


class Connection:
    """One client, from its first event to the goodbye. Made by a route, which awaits `run` and nothing else.

    All methods run on the event loop; `hang_up` and `drain` may be called while `run` runs.
    """

    def __init__(
        self,
        transport: Transport,
        session: Session,
        dialect: Dialect,
        scheduler: BatchScheduler,
        limits: ConnectionLimits,
        new_id: Callable[[str], str],
        admit_speaker: Callable[[str], None] = lambda model: None,
    ) -> None:
        """`admit_speaker` is asked before the first decoding. It raises Unavailable: the model has no room for it."""
        self._transport = transport
        self._session = session
        self._dialect = dialect
        self._scheduler = scheduler
        self._limits = limits
        self._new_id = new_id
        self._admit_speaker = admit_speaker
        self._has_spoken = False
        self._outbox = Outbox(limits.max_outbox_bytes)
        self._max_backlog_s = limits.max_backlog_s
        self._jobs: set[asyncio.Task[None]] = set()
        self._decodings: dict[str, asyncio.Task[None]] = {}
        """The job of each item that is out: a newer one takes its place."""
        self._final_decoding = asyncio.Lock()
        """Ended items are decoded one by one, so that a client far ahead of its text stands in nobody's way."""
        self._alignment = asyncio.Lock()
        """Their words are placed likewise, in a line of their own: what they wait for holds up all text after them."""
        self._receiver: asyncio.Task[None] | None = None
        self._end: asyncio.Future[_End] = asyncio.get_running_loop().create_future()
        self._progress = asyncio.Event()
        self._last_error: str | None = None
        self._has_ended = asyncio.Event()

    async def run(self) -> None:
        """Serve the client until it leaves, its time is up, or something breaks."""
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._limits.max_session_s, self._expire)
        sender = loop.create_task(self._send_loop())
        self._receiver = loop.create_task(self._receive_loop())
        for task in (sender, self._receiver):
            task.add_done_callback(self._check)
        end = _End(1011, "The server stopped serving this connection.")
        try:
            self._perform(self._session.start())
            end = await self._end
        finally:
            timer.cancel()
            for task in (self._receiver, *self._jobs):
                task.cancel()
            self._scheduler.release(self._session.id)
            try:
                await self._say_goodbye(sender, end)
            finally:
                self._log(end)
                self._has_ended.set()

    def introduce(self) -> list[str]:
        """The first messages for a client who joins a session that runs already."""
        return self._dialect.serialize(self._session.created, self._new_id)

    def hang_up(self) -> None:
        """End the session now, on behalf of whoever may; `run` then comes to its end."""
        self._stop(_End(1000, "The call was hung up."))

    async def drain(self, timeout_s: float) -> None:
        """Finish what is open, fail what can't be finished in time, and say goodbye: the server stops."""
        if self._receiver is not None:
            self._receiver.cancel()  # else a voice that goes on would open the next turn
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    self._perform(self._session.end_turn())
                    if self._session.is_idle or self._end.done():
                        break
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            self._perform(self._session.fail_unfinished(EngineError("The server is shutting down.")))
        self._stop(_End(1001, "The server is shutting down."))
        # Until the goodbye is said: the web server cuts off what is still open when it ends.
        await self._has_ended.wait()

    async def _receive_loop(self) -> None:
        while True:
            await self._wait_for_text()
            try:
                await self._outbox.wait_for_room()
            except TimeoutError:
                self._stop(_SLOW_READER)
                return
            try:
                self._receive(await self._transport.receive())
            except TransportClosed as closed:
                self._stop(_End(closed.code, closed.reason or "The client closed the connection."))
                return
            # A client that sends much at once leaves no other chance to send it anything.
            await asyncio.sleep(0)

    async def _wait_for_text(self) -> None:
        """Read nothing while too much audio waits for its text.

        Pings and pongs stand in the same line as the audio, so after a while more is read all the same.
        """
        if self._session.backlog_s <= self._limits.max_backlog_s:
            self._max_backlog_s = self._limits.max_backlog_s
            return
        try:
            async with asyncio.timeout(PAUSE_S):
                while self._session.backlog_s > self._max_backlog_s:
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            self._max_backlog_s += 2 * self._limits.max_backlog_s

    def _receive(self, message: str | bytes | Samples) -> None:
        if isinstance(message, np.ndarray):
            self._perform(self._session.receive_audio(message))
            return
        try:
            event = self._dialect.parse(message)
            if self._transport.has_track and isinstance(event, Append):
                raise _audio_in_an_event(event)
        except ClientError as error:
            self._perform(self._session.receive_error(error))
        else:
            self._perform(self._session.receive_event(event))

    async def _send_loop(self) -> None:
        try:
            while (message := await self._outbox.take()) is not None:
                try:
                    await self._transport.send(message)
                except ClientError as error:
                    self._perform([ErrorEvent.of(error)])
        except TransportClosed as closed:
            self._stop(_End(closed.code, closed.reason or "The client closed the connection."))

    def _perform(self, outputs: Sequence[Output]) -> None:
        """Carry out what the session returned, in order."""
        for output in outputs:
            if self._end.done():  # the last word has been said
                break
            if isinstance(output, ErrorEvent):
                self._last_error = output.error.code
            if isinstance(output, SessionEvent):
                transcription = output.config.transcription
                self._scheduler.use(self._session.id, transcription.model if transcription else None)
            if isinstance(output, ItemDeleted) and (decoding := self._decodings.pop(output.item_id, None)):
                decoding.cancel()  # else it would wait, with its audio, and be done for nobody
            if isinstance(output, Job):
                if not isinstance(output, Decode) or self._may_speak(output.options.model):
                    self._start_job(output)
                continue
            try:
                for message in self._dialect.serialize(output, self._new_id):
                    self._outbox.put(message)
            except OverflowError:
                self._stop(_SLOW_READER)
        self._progress.set()

    def _may_speak(self, model: str) -> bool:
        """Whether the session may have speech decoded: once it may, always, else the connection ends."""
        if not self._has_spoken:
            try:
                self._admit_speaker(model)
            except Unavailable as error:
                self._perform([ErrorEvent.of(error)])
                self._stop(_End(1013, f"{error.type}.{error.code}"))
                return False
            self._has_spoken = True
        return True

    def _start_job(self, job: Job) -> None:
        task = asyncio.get_running_loop().create_task(self._run_job(job))
        self._jobs.add(task)
        task.add_done_callback(self._check)
        if isinstance(job, Decode):
            if older := self._decodings.get(job.stream_id):
                older.cancel()
            self._decodings[job.stream_id] = task

    async def _run_job(self, job: Job) -> None:
        try:
            match job:
                case LoadModel():
                    with suppress(TimeoutError):  # then the speech waits for it
                        async with asyncio.timeout(self._limits.model_wait_s):
                            await self._scheduler.load(job.model)
                    outputs = self._session.receive_loaded(job)
                case DetectSpeech():
                    outputs = self._session.receive_speech(*await self._scheduler.run(job))
                case JudgeTurn():
                    outputs = self._session.receive_judgement(await self._scheduler.run(job))
                case Decode():
                    async with self._final_decoding if job.is_final else nullcontext():
                        hypothesis = await self._scheduler.run(job)
                    outputs = self._session.receive_hypothesis(job.stream_id, hypothesis)
                case Align():
                    async with self._alignment:
                        alignment = await self._scheduler.run(job)
                    outputs = self._session.receive_alignment(job, alignment)
        except EngineError as error:
            logger.warning("A job of session %s failed: %s", self._session.id, error)
            outputs = self._session.receive_failure(job, error)
        if isinstance(job, Decode):
            del self._decodings[job.stream_id]
        self._perform(outputs)

    def _check(self, task: asyncio.Task[None]) -> None:
        """A task has ended: if by a bug, so does the connection."""
        self._jobs.discard(task)
        if not task.cancelled() and (bug := task.exception()):
            logger.error("Session %s ends by a bug.", self._session.id, exc_info=bug)
            self._stop(_End(1011, "The server had an error while processing your request."))

    def _expire(self) -> None:
        expired = self._session.expire()
        self._perform([expired])
        self._stop(_End(1001, expired.error.message))

    def _stop(self, end: _End) -> None:
        if not self._end.done():
            self._end.set_result(end)
            self._progress.set()

    async def _say_goodbye(self, sender: asyncio.Task[None], end: _End) -> None:
        self._outbox.close()
        try:
            async with asyncio.timeout(GOODBYE_S):
                await asyncio.wait([sender])
                await self._transport.close(end.code, end.reason)
        except TimeoutError:
            sender.cancel()

    def _log(self, end: _End) -> None:
        config = self._session.config
        session_logger.info(
            "session ended",
            extra={
                "session": self._session.id,
                "dialect": self._dialect.name,
                "model": config.transcription.model if config.transcription else None,
                "audio_s": round(self._session.audio_ms / 1000, 2),
                "items": self._session.items_committed,
                "last_error": self._last_error,
                "code": end.code,
                "reason": end.reason,
            },
        )


def _audio_in_an_event(event: Append) -> ClientError:
    message = "The audio of this session comes on its track; 'input_audio_buffer.append' is not available."
    return ClientError("invalid_parameter", message, "type", event_id=event.event_id)
