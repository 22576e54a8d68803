"""Models of sherpa-onnx that stream by themselves: audio in as it comes, tokens out. Knows no files and no session.

Each stretch of speech has a stream of the library, which keeps the networks' state, and is fed only what is new of it:
nothing is decoded twice. All streams of a batch go through the networks together.
"""

from __future__ import annotations

import re
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, takewhile
from typing import Any

import numpy as np

from auricle.audio.formats import SAMPLE_RATE
from auricle.engines.base import UNKNOWN_LOGPROB, Decode, EngineError, Hypothesis, Token, Transcription
from auricle.engines.rolling import prefix_distances
from auricle.engines.sherpa_hotwords import Hotwords
from auricle.protocol.config import DEFAULT_DELAY

MAX_STREAMS = 256
"""How many streams are kept, the newest. One that is forgotten costs decoding its stretch once more."""
IDLE_S = 30.0
"""How long a stream is kept of which nothing is heard: a few MB. A stretch goes on or ends within a second or two."""

STOOD_S: Mapping[str, float] = {"minimal": 0.3, "low": 0.6, "medium": 1.0, "high": 1.5, "xhigh": 2.5}
"""Where a search may still change its mind: what stood for so much speech is settled, by the client's `delay`."""

_LAG_S = 0.3
"""How long after a sound such models may tell it, beyond the audio that they want to hear ahead."""
_LONGEST_CHUNK_S = 10.0
_TOKEN_S = 0.2
"""The longest that a token is taken to last: the library tells when it begins, and the next one may come much later."""


@dataclass(slots=True)
class _Stream:
    """A stretch of speech that goes on."""

    setup: tuple[object, ...]
    """What the library's stream was made for."""
    online: Any
    """The library's stream."""
    heard_s: float = 0.0
    """When something was last heard of it."""
    fed: int = 0
    """How many samples of the stretch it was given."""
    tokens: list[Token] = field(default_factory=list)
    """What was found in them."""
    since: list[int] = field(default_factory=list)
    """For each token, how many samples were fed when it, and all before it, came to be as they are."""

    def take(self, tokens: list[Token]) -> None:
        """Remember what is found now."""
        same = _common([token.text for token in tokens], [token.text for token in self.tokens])
        self.since = self.since[:same] + [self.fed] * (len(tokens) - same)
        self.tokens = tokens

    def settled(self, stood_samples: int) -> int:
        """How many tokens have stood for so long."""
        return sum(self.fed - since >= stood_samples for since in self.since)


class StreamingEngine:
    """Transcribes each stream's speech as it comes. Implements `Engine`.

    Owns the library's streams of the stretches that go on. Called by one thread only.
    """

    def __init__(
        self,
        name: str,
        recognizer: Any,
        hotwords: Hotwords | None = None,
        language: str | None = None,
        *,
        may_revise: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`recognizer` is an `OnlineRecognizer`, which is warm afterwards; `hotwords` brings keywords into its form.

        `language`: the only one that it knows. Unless it `may_revise` what it found, all is settled at once. Raises
        EngineError: it can't decode.
        """
        self._name = name
        self._recognizer = recognizer
        self._language = language
        self._hotwords = hotwords
        self._may_revise = may_revise
        self._clock = clock
        self._streams: OrderedDict[tuple[str, int], _Stream] = OrderedDict()
        self._takes_several = True
        """Whether the networks take several streams at once; some were exported for one."""
        # With so much silence behind it, the last sound of a stretch has gone through the networks.
        self._tail = np.zeros(self._chunk_samples() + int(_LAG_S * SAMPLE_RATE), np.float32)

    def decode(self, jobs: Sequence[Decode]) -> list[Hypothesis | EngineError]:
        """See `Engine`. Raises EngineError if the library fails."""
        heard = [job for job in jobs if job.samples.size]
        streams = [self._fed(job) for job in heard]
        try:
            self._run([stream.online for stream in streams])
        except EngineError:
            for job in heard:  # what it left behind is anyone's guess
                self._streams.pop((job.stream_id, job.piece), None)
            raise
        for stream in streams:
            stream.take(_tokens(self._recognizer.get_result_all(stream.online), stream.fed))
        hypotheses: list[Hypothesis | EngineError] = [self._answer(job) for job in jobs]
        self._forget()
        return hypotheses

    def _forget(self) -> None:
        """Let go of the oldest streams: those that are too many, and those that were given up without an end."""
        now_s = self._clock()
        while self._streams:
            oldest = next(iter(self._streams.values()))
            if len(self._streams) <= MAX_STREAMS and now_s - oldest.heard_s <= IDLE_S:
                return
            self._streams.popitem(last=False)

    def _fed(self, job: Decode) -> _Stream:
        """The job's stream, fed what is new."""
        key = (job.stream_id, job.piece)
        # What of the options the library takes.
        setup = (job.start, job.options.language, tuple(job.options.keywords or ()))
        stream = self._streams.get(key)
        if stream is None or stream.setup != setup or stream.fed > job.samples.size:
            stream = self._streams[key] = _Stream(setup, self._open(job.options))
        self._streams.move_to_end(key)
        stream.heard_s = self._clock()
        stream.online.accept_waveform(SAMPLE_RATE, job.samples[stream.fed :])
        stream.fed = job.samples.size
        if job.is_final:
            stream.online.accept_waveform(SAMPLE_RATE, self._tail)
            stream.online.input_finished()
        return stream

    def _open(self, options: Transcription) -> Any:
        hotwords = self._hotwords.of(options.keywords or ()) if self._hotwords else None
        stream = self._recognizer.create_stream(hotwords) if hotwords else self._recognizer.create_stream()
        if options.language:
            stream.set_option("language", options.language)  # only models of many languages look at it
        return stream

    def _run(self, streams: Sequence[Any]) -> None:
        """Decode what the streams have. Raises EngineError."""
        try:
            while ready := [stream for stream in streams if self._recognizer.is_ready(stream)]:
                for batch in [ready] if self._takes_several else [[stream] for stream in ready]:
                    self._recognizer.decode_streams(batch)
        except RuntimeError as error:
            raise EngineError(f"The model {self._name} failed: {error}") from error

    def _answer(self, job: Decode) -> Hypothesis:
        stream = self._streams.get((job.stream_id, job.piece))
        if stream is None or not job.samples.size:
            return Hypothesis(language=self._language, is_streaming=True)
        stood_s = STOOD_S[job.options.delay or DEFAULT_DELAY] if self._may_revise else 0.0
        settled = len(stream.tokens) if job.is_final else stream.settled(int(stood_s * SAMPLE_RATE))
        begin, rest = _after(job.settled, stream.tokens)
        if job.is_final:
            del self._streams[job.stream_id, job.piece]
        count = max(settled - begin, 0)
        return Hypothesis(tuple(rest[:count]), tuple(rest[count:]), self._language, is_streaming=True)

    def _chunk_samples(self) -> int:
        """How much audio the networks take at a time, and whether several streams', found out by trying."""
        step = np.zeros(SAMPLE_RATE // 100, np.float32)
        streams = [self._recognizer.create_stream() for _ in range(3)]
        fed = 0
        while not self._recognizer.is_ready(streams[0]) and fed < _LONGEST_CHUNK_S * SAMPLE_RATE:
            for stream in streams:
                stream.accept_waveform(SAMPLE_RATE, step)
            fed += step.size
        self._run(streams[:1])
        try:
            self._run(streams[1:])
        except EngineError:
            self._takes_several = False
        return fed


def _tokens(result: Any, size: int) -> list[Token]:
    """Tokens with their probabilities and times where the model tells them all, else the letters of the text.

    `size` is how many samples of speech there are.
    """
    texts, logprobs, begins_s = _spelled(result.tokens), list(result.ys_probs), list(result.timestamps)
    if "".join(texts).strip() != result.text.strip():  # an alphabet of its own, or rules have changed the text
        texts, logprobs, begins_s = re.findall(r"\s*\S", result.text), [], []
    if len(logprobs) != len(texts):
        logprobs = [UNKNOWN_LOGPROB] * len(texts)
    spans = emission_spans(begins_s, size) if len(begins_s) == len(texts) else [None] * len(texts)
    return [Token(text, value, span=span) for text, value, span in zip(texts, logprobs, spans, strict=True)]


def emission_spans(begins_s: Sequence[float], size: int) -> list[tuple[int, int] | None]:
    """From where to where tokens were said that begin at these times: up to the next one, but not for long."""
    begins = list(accumulate((min(round(begin_s * SAMPLE_RATE), size) for begin_s in begins_s), max))
    longest = int(_TOKEN_S * SAMPLE_RATE)
    return [(begin, min(begin + longest, after)) for begin, after in zip(begins, [*begins, size][1:], strict=True)]


def _spelled(tokens: Sequence[str]) -> list[str]:
    """The tokens' texts. The last of those that are the bytes of a letter, such as `<0xC3>` and `<0xA4>`, has it."""
    texts, letter = [], b""
    for token in tokens:
        if not re.fullmatch(r"<0x[0-9A-F]{2}>", token):
            texts.append(token.replace("▁", " "))
            letter = b""
            continue
        letter += bytes.fromhex(token[3:5])
        try:
            texts.append(letter.decode())
            letter = b""
        except UnicodeDecodeError:
            texts.append("")
    return texts


def _after(settled: str, tokens: Sequence[Token]) -> tuple[int, list[Token]]:
    """How many of the tokens the settled text has said, and what follows it: the rest of one that is half said, first.

    If the tokens don't begin with that text, the words that come nearest to it count as said, by the fewest letters to
    change; where there are no words, the tokens.
    """
    text = "".join(token.text for token in tokens)
    ends = list(accumulate((len(token.text) for token in tokens), initial=0))
    said = len(settled)
    if not text.startswith(settled):
        same = _common(settled, text)
        distances = prefix_distances(settled[same:], text[same:])
        later = [end for end in ends if end >= same]
        words = [end for end in later if text[end : end + 1].isspace()]
        said = min([*(words or later), len(text)], key=lambda end: (distances[end - same], -end))
    begin = bisect_right(ends, said) - 1
    rest = list(tokens[begin:])
    if said > ends[begin]:
        rest[0] = replace(rest[0], text=rest[0].text[said - ends[begin] :])
    return begin, rest


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """How many entries, or letters, they have in common at their beginnings."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
