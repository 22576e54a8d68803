"""The state machine of one transcription session.

Rules without a source of their own are those of OpenAI's service as its API reference and recordings of it show them;
`docs/protocol.md` lists them and says where we differ.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import assert_never

import numpy as np

from auricle.audio.formats import SAMPLE_RATE, WINDOW_SAMPLES, Samples
from auricle.errors import ClientError, EngineError
from auricle.protocol.config import LOGPROBS, ServerVad, SessionConfig
from auricle.protocol.events import (
    Append,
    Clear,
    Cleared,
    ClientEvent,
    Commit,
    Committed,
    DeleteItem,
    ErrorEvent,
    ItemAdded,
    ItemDeleted,
    ItemRetrieved,
    RetrieveItem,
    ServerEvent,
    SessionCreated,
    SessionUpdated,
    SpeechStarted,
    SpeechStopped,
    TranscriptionCompleted,
    TranscriptionDelta,
    TranscriptionError,
    TranscriptionFailed,
    UpdateSession,
)
from auricle.session.conversation import Conversation
from auricle.session.input_buffer import InputAudioBuffer, to_ms, to_samples
from auricle.session.item import SessionItem
from auricle.session.jobs import Decode, DetectSpeech, Hypothesis, Job, Token
from auricle.session.speech import is_believable, speech_pieces
from auricle.session.transcript import log_probabilities, usage
from auricle.session.turns import TurnChange, TurnDetector, TurnRule

Output = ServerEvent | Job
_Entry = ClientEvent | Samples | ErrorEvent
"""What can stand in line: events, audio, and errors that are told in their turn."""

MIN_COMMIT_MS = 100
EVENT_WEIGHT_S = 0.1
"""What an event without audio that waits counts for in the backlog."""
KEPT_SILENCE_MS = 2_000
"""How much audio without a turn stays committable by hand when turns are detected; more if the prefix needs it."""
MAX_DETECT_SAMPLES = 96 * WINDOW_SAMPLES
"""Most audio in one `DetectSpeech` (3 s): a client that sends a whole file at once must not hold up the others."""


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """What one session may take of the server."""

    max_session_s: float = 3600.0
    max_item_s: float = 600.0
    """Seconds of audio in one item. A detected turn is cut there; by hand, no more audio is taken before a commit."""
    kept_audio_s: float = 15.0
    """Seconds of audio of finished items that stay retrievable, the newest ones."""


class Session:
    """State of one realtime transcription session. No I/O: every method returns what must be done next.

    A connection owns it, calls it from one thread and carries out what it returns, in order. Events other than `append`
    wait until speech detection has heard all audio before them, so what a client is told depends on the order of its
    events alone and never on timing.
    """

    def __init__(
        self,
        session_id: str,
        expires_at: int,
        config: SessionConfig,
        limits: SessionLimits,
        new_id: Callable[[str], str],
    ) -> None:
        """`expires_at` is Unix time in seconds; `new_id("item")` makes an id that is unique over all sessions."""
        self.id = session_id
        self.config = config
        self._expires_at = expires_at
        self._limits = limits
        self._new_id = new_id
        self._buffer = InputAudioBuffer(config.format.audio_format)
        self._turns = TurnDetector(TurnRule.of(config.turn_detection)) if config.turn_detection else None
        self._open_item_id: str | None = None
        """The item that an open turn will become. The turn's audio begins where the buffer begins."""
        self._is_detecting = False
        self._waiting: deque[_Entry] = deque()
        self._waiting_s = 0.0
        self._conversation = Conversation(limits.kept_audio_s)

    # What the connection looks at

    @property
    def audio_ms(self) -> int:
        """How much audio has come in."""
        return to_ms(self._buffer.appended)

    @property
    def items_committed(self) -> int:
        """How many items there have been."""
        return self._conversation.items_added

    @property
    def backlog_s(self) -> float:
        """Seconds of audio that came in and wait for speech detection or for their text."""
        undecoded = sum(item.duration_samples for item in self._conversation.unfinished)
        return (self._buffer.unheard_samples + undecoded) / SAMPLE_RATE + self._waiting_s

    @property
    def is_idle(self) -> bool:
        """Whether nothing is open: no turn, no event that waits, no item without its text."""
        has_open_turn = self._turns is not None and self._open_item_id is not None
        return self._has_heard_all and not (has_open_turn or self._waiting or self._conversation.unfinished)

    # What happens to it

    def start(self) -> list[Output]:
        """The first event."""
        return [SessionCreated(session_id=self.id, expires_at=self._expires_at, config=self.config)]

    def receive_event(self, event: ClientEvent) -> list[Output]:
        """Take in what the client said. Its faults come back as error events and change nothing."""
        return self._receive(event)

    def receive_error(self, error: ClientError) -> list[Output]:
        """Take in that the client said something that is no event; it is told in its turn."""
        return self._receive(ErrorEvent.of(error))

    def receive_audio(self, samples: Samples) -> list[Output]:
        """Take in audio that doesn't come in events: float32 mono, 16 kHz."""
        return self._receive(samples)

    def receive_speech(self, probabilities: Sequence[float]) -> list[Output]:
        """Take in the answer to the last `DetectSpeech`: one probability per window."""
        self._is_detecting = False
        outputs: list[Output] = []
        for probability in probabilities:
            self._buffer.hear(probability)
            outputs += self._advance_turn(probability)
        return outputs + self._handle_waiting()

    def receive_hypothesis(self, item_id: str, hypothesis: Hypothesis) -> list[Output]:
        """Take in the answer to a final `Decode`. An item that was deleted meanwhile is ignored."""
        item = self._conversation.get(item_id)
        if item is None or item.is_finished:
            return []
        piece = item.pieces.popleft()
        tokens = hypothesis.committed if is_believable(hypothesis.committed, piece.clear_windows) else ()
        told = item.transcript.extend(tokens)
        if item.pieces:
            item.transcript.begin_piece()
            return [*self._conversation.tell(item, _deltas(item, told)), *self._decode(item)]
        return [*self._conversation.finish(item, [*_deltas(item, told), _completion(item)])]

    def receive_failure(self, job: Job, error: EngineError) -> list[Output]:
        """Take in that a job failed: its item will have no text, or its windows count as silence."""
        if isinstance(job, DetectSpeech):
            return [ErrorEvent.of(error), *self.receive_speech([0.0] * (job.samples.size // WINDOW_SAMPLES))]
        item = self._conversation.get(job.stream_id)
        if item is None or item.is_finished:
            return []
        return [*self._conversation.finish(item, [_failed(item, error)])]

    def expire(self) -> ErrorEvent:
        """The session has reached its longest time. The connection closes after telling this."""
        minutes = f"{self._limits.max_session_s / 60:g}"
        error = ClientError("session_expired", f"Your session hit the maximum duration of {minutes} minutes.")
        return ErrorEvent.of(error)

    def end_turn(self) -> list[Output]:
        """End an open turn now, as if silence had, unless some audio is still to be heard: there will be no more."""
        return self._stop_turn() if self._open_item_id and self._turns and self._has_heard_all else []

    def fail_unfinished(self, error: EngineError) -> list[Output]:
        """Give up on all items that have no text yet."""
        outputs: list[Output] = []
        for item in self._conversation.unfinished:
            outputs += self._conversation.finish(item, [_failed(item, error)])
        return outputs

    # Client events

    def _receive(self, entry: _Entry) -> list[Output]:
        self._waiting.append(entry)
        self._waiting_s += self._weight_s(entry)
        return self._handle_waiting()

    def _handle_waiting(self) -> list[Output]:
        """Handle what waits, as far as speech detection has come."""
        outputs: list[Output] = []
        while self._waiting and self._has_heard_before(self._waiting[0]):
            entry = self._waiting.popleft()
            self._waiting_s -= self._weight_s(entry)
            outputs += self._handle(entry)
        if not self._waiting:
            self._waiting_s = 0.0  # the format may have changed while audio waited, and sums of fractions drift
        return outputs + self._detect()

    def _weight_s(self, entry: _Entry) -> float:
        """What an entry adds to the backlog while it waits: its audio, or a little, so that events are bounded too."""
        match entry:
            case Append():
                return len(entry.audio) / self.config.format.audio_format.bytes_per_ms / 1000
            case np.ndarray():
                return entry.size / SAMPLE_RATE
            case _:
                return EVENT_WEIGHT_S

    def _has_heard_before(self, entry: _Entry) -> bool:
        if isinstance(entry, Append | np.ndarray):
            return True
        if isinstance(entry, Commit) and self._has_heard_all and self._can_commit:
            # The commit takes what the resampler holds back too, so that must be heard as well.
            self._buffer.flush()
        return self._has_heard_all

    def _handle(self, entry: _Entry) -> list[Output]:
        match entry:
            case np.ndarray():
                self._buffer.append(entry)
                return []
            case ErrorEvent():
                return [entry]
        try:
            return self._handle_event(entry)
        except ClientError as error:
            return [ErrorEvent.of(error, entry.event_id)]

    def _handle_event(self, event: ClientEvent) -> list[Output]:
        match event:
            case Append():
                return self._append(event)
            case Commit():
                return self._commit_by_hand()
            case Clear():
                return self._clear()
            case UpdateSession():
                return self._update(event)
            case RetrieveItem():
                item = self._item(event.item_id, "retrieving", "item_retrieve_invalid_item_id")
                return [ItemRetrieved(item=item.on_wire(self.config.format.audio_format))]
            case DeleteItem():
                return self._delete(event)
            case _:
                assert_never(event)

    def _append(self, event: Append) -> list[Output]:
        duration_s = self._buffer.duration_samples / SAMPLE_RATE + self._weight_s(event)
        if self._turns is None and duration_s > self._limits.max_item_s:
            raise ClientError(
                "input_audio_buffer_full",
                f"The input audio buffer holds at most {self._limits.max_item_s:g} s of audio. "
                "Nothing of this event was added; commit or clear the buffer first.",
                "audio",
            )
        self._buffer.append_bytes(event.audio)
        return []

    @property
    def _can_commit(self) -> bool:
        return self._buffer.duration_samples >= to_samples(MIN_COMMIT_MS)

    def _commit_by_hand(self) -> list[Output]:
        if not self._can_commit:
            buffered_ms = self._buffer.duration_samples / SAMPLE_RATE * 1000
            raise ClientError(
                "input_audio_buffer_commit_empty",
                f"Error committing input audio buffer: buffer too small. Expected at least {MIN_COMMIT_MS}ms of audio, "
                f"but buffer only has {buffered_ms:.2f}ms of audio.",
            )
        return self._commit(self._buffer.appended)

    def _clear(self) -> list[Output]:
        # Reading anew also forgets half a sample, which would put all audio that follows out of step.
        self._buffer.use_format(self.config.format.audio_format)
        self._buffer.drop_before(self._buffer.appended)
        self._close_turn()
        return [Cleared()]

    def _update(self, event: UpdateSession) -> list[Output]:
        before, self.config = self.config, event.apply(self.config)
        if self.config.format != before.format:
            self._buffer.use_format(self.config.format.audio_format)
        if self.config.turn_detection is None:
            # An open turn keeps its item: the client has been told its id and will commit it by hand.
            self._turns = None
        elif self._turns is None:
            self._turns = TurnDetector(TurnRule.of(self.config.turn_detection), is_open=self._open_item_id is not None)
        else:
            self._turns.rule = TurnRule.of(self.config.turn_detection)
        return [SessionUpdated(session_id=self.id, expires_at=self._expires_at, config=self.config)]

    def _delete(self, event: DeleteItem) -> list[Output]:
        item = self._item(event.item_id, "deleting", "item_delete_invalid_item_id")
        return [ItemDeleted(item_id=item.id), *self._conversation.delete(item)]

    def _item(self, item_id: str, deed: str, code: str) -> SessionItem:
        item = self._conversation.get(item_id)
        if item is None:
            raise ClientError(code, f"Error {deed} item: the item with id '{item_id}' does not exist.")
        return item

    # Speech and turns

    @property
    def _has_heard_all(self) -> bool:
        return self._buffer.unheard_samples == 0

    def _detect(self) -> list[Output]:
        if self._is_detecting or self._has_heard_all:
            return []
        self._is_detecting = True
        return [DetectSpeech(self.id, self._buffer.take_unheard(MAX_DETECT_SAMPLES))]

    def _advance_turn(self, probability: float) -> list[Output]:
        end = self._buffer.heard
        if self._turns is None or end <= self._buffer.start:  # or all of the window is committed or cleared
            return []
        match self._turns.push(probability):
            case TurnChange.STARTED:
                return self._start_turn(end - WINDOW_SAMPLES)
            case TurnChange.STOPPED:
                return self._stop_turn()
        if not self._turns.is_open:
            kept_ms = max(self._turns.rule.prefix_padding_ms, KEPT_SILENCE_MS)
            self._buffer.drop_before(end - to_samples(kept_ms))
        elif end - self._buffer.start >= self._limits.max_item_s * SAMPLE_RATE:
            return self._stop_turn()
        return []

    def _start_turn(self, detected: int) -> list[Output]:
        assert self._turns is not None
        self._open_item_id = self._new_id("item")
        self._buffer.drop_before(detected - to_samples(self._turns.rule.prefix_padding_ms))
        return [SpeechStarted(audio_start_ms=to_ms(self._buffer.start), item_id=self._open_item_id)]

    def _stop_turn(self) -> list[Output]:
        assert self._open_item_id is not None
        end = self._buffer.heard
        stopped = SpeechStopped(audio_end_ms=to_ms(end), item_id=self._open_item_id)
        return [stopped, *self._commit(end)]

    def _close_turn(self) -> None:
        self._open_item_id = None
        if self._turns is not None:
            self._turns.reset()

    # Items

    def _commit(self, end: int) -> list[Output]:
        """Make an item of the buffer's audio before `end`."""
        buffer = self._buffer
        item = SessionItem(
            id=self._open_item_id or self._new_id("item"),
            samples=buffer.read(buffer.start, end),
            duration_samples=end - buffer.start,
            options=self.config.transcription,
            with_logprobs=LOGPROBS in (self.config.include or ()),
        )
        if item.options is not None:
            rule = self._turns.rule if self._turns else TurnRule.of(ServerVad())
            probabilities = buffer.probabilities(buffer.start, end)
            item.pieces.extend(speech_pieces(item.samples, buffer.start, probabilities, rule))
        previous_id = self._conversation.last_id
        buffer.drop_before(end)
        self._close_turn()
        self._conversation.add(item)
        outputs: list[Output] = [
            Committed(previous_item_id=previous_id, item_id=item.id),
            ItemAdded(previous_item_id=previous_id, item=item.on_wire()),
        ]
        if item.options is None:
            return [*outputs, *self._conversation.finish(item, [])]
        if not item.pieces:
            return [*outputs, *self._conversation.finish(item, [_completion(item)])]
        return [*outputs, *self._decode(item)]

    def _decode(self, item: SessionItem) -> list[Output]:
        assert item.options is not None
        return [Decode(item.id, item.options, item.pieces[0].samples, is_final=True)]


def _deltas(item: SessionItem, told: Sequence[Token]) -> list[ServerEvent]:
    """The event for more of an item's text, if there is any."""
    if not told:
        return []
    delta = "".join(token.text for token in told)
    return [
        TranscriptionDelta(
            item_id=item.id, delta=delta, logprobs=log_probabilities(told) if item.with_logprobs else None
        )
    ]


def _completion(item: SessionItem) -> TranscriptionCompleted:
    assert item.options is not None
    tokens = item.transcript.tokens
    return TranscriptionCompleted(
        item_id=item.id,
        transcript=item.transcript.text,
        usage=usage(item.options, item.duration_samples, tokens),
        logprobs=log_probabilities(tokens) if item.with_logprobs else None,
    )


def _failed(item: SessionItem, error: EngineError) -> TranscriptionFailed:
    message = f"Input transcription failed for item '{item.id}'. {error}"
    return TranscriptionFailed(
        item_id=item.id, error=TranscriptionError(type=error.type, code=error.code, message=message)
    )
