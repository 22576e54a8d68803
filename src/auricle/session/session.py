"""The state machine of one transcription session.

Rules without a source of their own are those of OpenAI's service as its API reference and recordings of it show them;
`docs/protocol.md` lists them and says where we differ.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import assert_never

import numpy as np

from auricle.audio.formats import SAMPLE_RATE, WINDOW_SAMPLES, Samples
from auricle.errors import ClientError, EngineError
from auricle.protocol.config import ServerVad, SessionConfig
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
    SpokenLanguage,
    TranscriptionCompleted,
    TranscriptionDelta,
    TranscriptionError,
    TranscriptionFailed,
    UpdateSession,
)
from auricle.session.context import RecentSpeech
from auricle.session.conversation import Conversation
from auricle.session.decoding import ItemDecoding
from auricle.session.input_buffer import InputAudioBuffer, to_ms, to_samples
from auricle.session.item import SessionItem
from auricle.session.jobs import Align, Alignment, DetectSpeech, Hypothesis, Job, JudgeTurn, LoadModel, Token
from auricle.session.loading import ModelLoading
from auricle.session.transcript import log_probabilities, spoken_words, usage
from auricle.session.turns import MAX_JUDGED_SAMPLES, TurnChange, TurnDetector, TurnRule
from auricle.session.waiting import Entry, WaitingLine, duration_s

Output = ServerEvent | Job

MIN_COMMIT_MS = 100
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
        *,
        is_live: bool = True,
    ) -> None:
        """`expires_at` is Unix time in seconds; `new_id("item")` makes an id that is unique over all sessions.

        Unless `is_live`, nobody waits for the text of a turn that goes on, and it is decoded at its end.
        """
        self.id = session_id
        self.config = config
        self._expires_at = expires_at
        self._limits = limits
        self._new_id = new_id
        self._is_live = is_live
        self._buffer = InputAudioBuffer(config.format.audio_format)
        self._turns = TurnDetector(rule) if (rule := _turn_rule(config)) else None
        self._is_announced = False
        """Whether the client was told that the speech of the open item has started."""
        self._is_detecting = False
        self._probabilities: deque[tuple[float, float | None]] = deque()
        """Of windows that come after the one at which the turn is being judged, as they are and cleaned of noise."""
        self._is_judging = False
        self._waiting = WaitingLine()
        self._loading = ModelLoading()
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
        samples = self._buffer.unheard_samples + self._conversation.undecoded_samples
        return samples / SAMPLE_RATE + self._waiting.weight_s

    @property
    def is_idle(self) -> bool:
        """Whether nothing is open: no turn, no event that waits, no item without its text."""
        has_open_turn = self._turns is not None and self._open_item is not None
        has_waiting = self._waiting.first is not None or self._loading.holds_update
        return self._has_heard_all and not (has_open_turn or has_waiting or self._conversation.unfinished)

    # What happens to it

    @property
    def created(self) -> SessionCreated:
        """The first event that a client is told, with the settings as they are now."""
        return SessionCreated(session_id=self.id, expires_at=self._expires_at, config=self.config)

    def start(self) -> list[Output]:
        """The session begins: its first event, and the job that gets ready the model that it names by now."""
        return [self.created, *self._loading.begin(self.config)]

    def receive_event(self, event: ClientEvent) -> list[Output]:
        """Take in what the client said. Its faults come back as error events and change nothing."""
        return self._receive(event)

    def receive_error(self, error: ClientError) -> list[Output]:
        """Take in that the client said something that is no event; it is told in its turn."""
        return self._receive(ErrorEvent.of(error))

    def receive_audio(self, samples: Samples) -> list[Output]:
        """Take in audio that doesn't come in events: float32 mono, 16 kHz."""
        return self._receive(samples)

    def receive_speech(self, probabilities: Sequence[float], cleaned: Sequence[float] | None = None) -> list[Output]:
        """Take in the answer to the last `DetectSpeech`: for each window a probability, or two (see `Speech`)."""
        self._is_detecting = False
        self._probabilities.extend(zip(probabilities, cleaned or repeat(None), strict=False))
        return self._listen()

    def receive_judgement(self, score: float) -> list[Output]:
        """Take in the answer to the last `JudgeTurn`: how sure it is, 0 to 1, that the turn is over."""
        self._is_judging = False
        is_over = self._turns is not None and self._turns.judge(score) is TurnChange.STOPPED
        return [*(self._stop_turn() if is_over else ()), *self._listen()]

    def receive_hypothesis(self, item_id: str, hypothesis: Hypothesis) -> list[Output]:
        """Take in the answer to the last `Decode` of an item. One that was deleted or cleared meanwhile is ignored."""
        item = self._conversation.undecoded(item_id)
        return self._decode(item, item.decoding.receive(hypothesis)) if item else []

    def receive_alignment(self, job: Align, alignment: Alignment) -> list[Output]:
        """Take in the answer to an `Align`: when the words of a stretch of speech were said."""
        if item := self._conversation.undecoded(job.stream_id):
            item.decoding.words.receive(job.piece, alignment)
        return self._decode(item) if item else []

    def receive_loaded(self, job: LoadModel, error: EngineError | None = None) -> list[Output]:
        """Take in that a model is ready, that it was waited for long enough, or the `error` why it can't be loaded."""
        errors, settings = self._loading.end(job, error)
        return [*errors, *(self._use(settings) if settings else ()), *self._handle_waiting()]

    def receive_failure(self, job: Job, error: EngineError) -> list[Output]:
        """Take in that a job failed: its item has no text or no times, its windows are silence, its update refused."""
        if isinstance(job, LoadModel):
            return self.receive_loaded(job, error)
        if isinstance(job, DetectSpeech):
            return [ErrorEvent.of(error), *self.receive_speech([0.0] * (job.samples.size // WINDOW_SAMPLES))]
        if isinstance(job, JudgeTurn):
            return [ErrorEvent.of(error), *self.receive_judgement(0.0)]
        item = self._conversation.undecoded(job.stream_id)
        if item and not item.decoding.receive_failure(job):
            item.failure = error
        return self._decode(item) if item else []

    def expire(self) -> ErrorEvent:
        """The session has reached its longest time. The connection closes after telling this."""
        return ErrorEvent.of(_expired(self._limits.max_session_s))

    def end_turn(self) -> list[Output]:
        """End an open turn now, as if silence had, unless some audio is still to be heard: there will be no more."""
        return self._stop_turn() if self._open_item and self._turns and self._has_heard_all else []

    def fail_unfinished(self, error: EngineError) -> list[Output]:
        """Give up on all items that have no text yet, and on times of words."""
        for item in (unfinished := self._conversation.unfinished):
            item.give_up(error)
        return [output for item in unfinished for output in self._decode(item)]

    # Client events

    def _receive(self, entry: Entry) -> list[Output]:
        self._waiting.add(entry, self.config.format.audio_format)
        return self._handle_waiting()

    def _handle_waiting(self) -> list[Output]:
        """Handle what waits, as far as speech detection has come."""
        outputs: list[Output] = []
        while (first := self._waiting.first) is not None and self._may_handle(first):
            outputs += self._handle(self._waiting.take())
        return outputs + self._detect()

    def _may_handle(self, entry: Entry) -> bool:
        if self._loading.holds_update:
            return False
        if isinstance(entry, Append | np.ndarray):
            return True
        if isinstance(entry, Commit) and self._has_heard_all and _can_commit(self._buffer):
            # The commit takes what the resampler holds back too, so that must be heard as well.
            self._buffer.flush()
        return self._has_heard_all

    def _handle(self, entry: Entry) -> list[Output]:
        if isinstance(entry, ErrorEvent):
            return [entry]
        if isinstance(entry, np.ndarray):
            self._buffer.append(entry)
            return []
        try:
            return self._handle_event(entry)
        except ClientError as error:
            return [ErrorEvent.of(error, entry.event_id)]

    def _handle_event(self, event: ClientEvent) -> list[Output]:
        match event:
            case Append():
                return self._append(event)
            case Commit():
                if not _can_commit(self._buffer):
                    raise _buffer_too_small(self._buffer.duration_samples)
                return self._commit(self._buffer.appended)
            case Clear():
                return self._clear()
            case UpdateSession():
                settings = event.apply(self.config)
                jobs = self._loading.hold(event, self.config, settings)
                return self._use(settings) if jobs is None else [*jobs]
            case RetrieveItem():
                item = self._conversation.find(event.item_id, "retrieving", "item_retrieve_invalid_item_id")
                return [ItemRetrieved(item=item.on_wire(self.config.format.audio_format))]
            case DeleteItem():
                item = self._conversation.find(event.item_id, "deleting", "item_delete_invalid_item_id")
                return [ItemDeleted(item_id=item.id), *self._conversation.delete(item)]
            case _:
                assert_never(event)

    def _append(self, event: Append) -> list[Output]:
        buffered_s = self._buffer.duration_samples / SAMPLE_RATE + duration_s(event, self.config.format.audio_format)
        if self._turns is None and buffered_s > self._limits.max_item_s:
            raise _buffer_full(self._limits.max_item_s)
        self._buffer.append_bytes(event.audio)
        return []

    def _clear(self) -> list[Output]:
        # Reading anew also forgets half a sample, which would put all audio that follows out of step.
        self._buffer.use_format(self.config.format.audio_format)
        self._buffer.drop_before(self._buffer.appended)
        self._close_turn()
        self._conversation.forget_speech()
        return [Cleared()]

    def _use(self, settings: SessionConfig) -> list[Output]:
        before, self.config = self.config, settings
        if self.config.format != before.format:
            self._buffer.use_format(self.config.format.audio_format)
        outputs: list[Output] = [SessionUpdated(session_id=self.id, expires_at=self._expires_at, config=self.config)]
        item = self._open_item
        if item and self.config.turn_detection and not self._is_announced:
            # What was heard decides, not what was told of it, which hangs on how quick the decoder is.
            if item.decoding.has_speech:
                outputs.append(self._announce(item))  # its turn has begun, and will have an end
            else:
                item = self._conversation.open_item = None  # a turn will begin a new one
        if (rule := _turn_rule(self.config)) is None:
            # An open turn keeps its item: the client has been told its id and will commit it by hand.
            self._turns = None
            self._conversation.recent.forget()
        elif self._turns is None:
            self._turns = TurnDetector(rule, is_open=item is not None)
        else:
            self._turns.rule = rule
        if item:
            item.go_with(self.config)
        return outputs

    # Speech and turns

    @property
    def _has_heard_all(self) -> bool:
        return self._buffer.unheard_samples == 0 and not self._is_judging

    def _detect(self) -> list[Output]:
        if self._is_detecting or self._is_judging or self._has_heard_all:
            return []
        self._is_detecting = True
        samples = self._buffer.take_unheard(MAX_DETECT_SAMPLES)
        return [DetectSpeech(self.id, samples, self._buffer.heard, self.config.effective_noise_reduction)]

    def _listen(self) -> list[Output]:
        """Go on with the turn as far as speech detection has come, or until it must be judged."""
        outputs: list[Output] = []
        while self._probabilities and not self._is_judging:
            probability, cleaned = self._probabilities.popleft()
            self._buffer.hear(probability)
            outputs += self._advance_turn(probability, cleaned)
        # Once for all windows: of a file that comes at once, whole turns are heard before their text is needed.
        if self._open_item:
            outputs += self._decode(self._open_item)
        return outputs + self._handle_waiting()

    def _advance_turn(self, probability: float, cleaned: float | None) -> list[Output]:
        end = self._buffer.heard
        if end <= self._buffer.start:  # all of the window is committed or cleared
            return []
        if self._open_item:
            self._open_item.decoding.push(probability)
        if self._turns is None:
            if self._open_item is None:
                self._open()
            # A track goes on whether or not it is committed; appends are refused before they come this far.
            is_full = end - self._buffer.start > self._limits.max_item_s * SAMPLE_RATE
            return self._commit(end) if is_full else []
        match self._turns.push(probability, cleaned):
            case TurnChange.STARTED:
                self._buffer.drop_before(end - self._turns.lead_samples)
                return [self._announce(self._open())]
            case TurnChange.PAUSED:
                self._is_judging = True
                begin = max(self._buffer.start, end - MAX_JUDGED_SAMPLES)
                return [JudgeTurn(self.id, self._buffer.read(begin, end))]
            case TurnChange.STOPPED:
                return self._stop_turn()
        if not self._turns.is_open:
            kept_ms = max(self._turns.rule.prefix_padding_ms, KEPT_SILENCE_MS)
            self._buffer.drop_before(end - to_samples(kept_ms))
        elif end - self._buffer.start >= self._limits.max_item_s * SAMPLE_RATE:
            return self._stop_turn()
        return []

    def _announce(self, item: SessionItem) -> SpeechStarted:
        self._is_announced = True
        return SpeechStarted(audio_start_ms=to_ms(item.start), item_id=item.id)

    def _stop_turn(self) -> list[Output]:
        assert self._open_item is not None
        end = self._buffer.heard
        stopped = SpeechStopped(audio_end_ms=to_ms(end), item_id=self._open_item.id)
        return [stopped, *self._commit(end)]

    def _close_turn(self) -> None:
        self._conversation.open_item = None
        self._is_announced = False
        if self._turns is not None:
            self._turns.reset()

    # Items

    @property
    def _open_item(self) -> SessionItem | None:
        return self._conversation.open_item

    def _open(self) -> SessionItem:
        """Begin an item with what is in the buffer."""
        buffer = self._buffer
        rule = self._turns.rule if self._turns else TurnRule.of(ServerVad())
        # Utterances that a client cuts itself need not follow each other.
        recent = self._conversation.recent if self._turns else RecentSpeech()
        decoding = ItemDecoding(buffer.start, rule, buffer.read, recent, is_live=self._is_live)
        for probability in buffer.probabilities(buffer.start, buffer.heard):
            decoding.push(probability)
        item = SessionItem(self._new_id("item"), buffer.start, decoding, options=None, with_logprobs=False)
        item.go_with(self.config)
        self._conversation.open_item = item
        return item

    def _commit(self, end: int) -> list[Output]:
        """Make an item of the buffer's audio before `end`."""
        item = self._open_item or self._open()
        item.commit(self._buffer.read(self._buffer.start, end))
        previous_id = self._conversation.last_id
        self._buffer.drop_before(end)
        self._close_turn()
        self._conversation.add(item)
        added = ItemAdded(previous_item_id=previous_id, item=item.on_wire())
        return [Committed(previous_item_id=previous_id, item_id=item.id), added, *self._decode(item)]

    def _decode(self, item: SessionItem, told: Sequence[Token] = ()) -> list[Output]:
        """Tell what is new of an item's text, and have the rest decoded."""
        if item.options is None or item.failure:
            last_events = [_failed(item, item.failure)] if item.failure else []
            return [*self._conversation.finish(item, last_events)] if item is not self._open_item else []
        settled, jobs = item.decoding.advance(item.id, item.options)
        events = _deltas(item, [*told, *settled])
        if item.decoding.is_done:
            return [*self._conversation.finish(item, [*events, _completion(item)])]
        return [*self._conversation.tell(item, events), *jobs]


def _turn_rule(config: SessionConfig) -> TurnRule | None:
    return TurnRule.of(config.turn_detection, config.noise_reduction) if config.turn_detection else None


def _can_commit(buffer: InputAudioBuffer) -> bool:
    return buffer.duration_samples >= to_samples(MIN_COMMIT_MS)


def _expired(max_session_s: float) -> ClientError:
    return ClientError("session_expired", f"Your session hit the maximum duration of {max_session_s / 60:g} minutes.")


def _buffer_full(max_item_s: float) -> ClientError:
    message = (
        f"The input audio buffer holds at most {max_item_s:g} s of audio. "
        "Nothing of this event was added; commit or clear the buffer first."
    )
    return ClientError("input_audio_buffer_full", message, "audio")


def _buffer_too_small(samples: int) -> ClientError:
    message = (
        f"Error committing input audio buffer: buffer too small. Expected at least {MIN_COMMIT_MS}ms of audio, "
        f"but buffer only has {samples / SAMPLE_RATE * 1000:.2f}ms of audio."
    )
    return ClientError("input_audio_buffer_commit_empty", message)


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
    tokens = item.decoding.transcript.tokens
    return TranscriptionCompleted(
        item_id=item.id,
        transcript=item.decoding.transcript.text,
        usage=usage(item.options, item.duration_samples, tokens),
        logprobs=log_probabilities(tokens) if item.with_logprobs else None,
        words=spoken_words(item.decoding.words.words, with_logprobs=item.with_logprobs),
        languages=[SpokenLanguage(code=code) for code in item.decoding.languages] or None,
    )


def _failed(item: SessionItem, error: EngineError) -> TranscriptionFailed:
    message = f"Input transcription failed for item '{item.id}'. {error}"
    return TranscriptionFailed(
        item_id=item.id, error=TranscriptionError(type=error.type, code=error.code, message=message)
    )
