"""From an item's hypotheses to the text that the client is told."""

from __future__ import annotations

import math
from collections.abc import Sequence, Sized
from dataclasses import replace

from auricle.audio.formats import SAMPLE_RATE
from auricle.protocol.config import Transcription
from auricle.protocol.events import DurationUsage, InputTokenDetails, LogProb, SpokenWord, TokenUsage
from auricle.session.jobs import Token
from auricle.session.words import SaidWord

_AUDIO_TOKENS_PER_SECOND = 10
"""How OpenAI counts audio for its gpt-4o models."""


class ItemTranscript:
    """The settled text of one item. Its deltas, joined, are always its text: nothing is taken back.

    Space at the front is never told, and space at the end only together with text that follows it.
    """

    def __init__(self) -> None:
        self.tokens: list[Token] = []
        """What was told so far."""
        self._space = ""
        self._space_ids: tuple[int, ...] = ()
        """Of tokens that are nothing but that space."""
        self._begins_piece = False
        self._piece_begin = 0

    def begin_piece(self) -> None:
        """What comes next was decoded apart from what came before, so that no word goes on into it."""
        self._begins_piece = True
        self._piece_begin = len(self.tokens)

    @property
    def of_piece(self) -> list[Token]:
        """What was told of the stretch of speech that is decoded now."""
        return self.tokens[self._piece_begin :]

    @property
    def text(self) -> str:
        return "".join(token.text for token in self.tokens)

    def extend(self, committed: Sequence[Token]) -> list[Token]:
        """Take in newly settled tokens. Returns what is to be told of them now."""
        before = len(self.tokens)
        for token in committed:
            text = self._space + token.text if self.tokens else token.text.lstrip()
            if self._begins_piece and text:
                self._begins_piece = False
                if self.tokens and not text[0].isspace():
                    text = " " + text
            told = text.rstrip()
            self._space = text[len(told) :]
            ids = self._space_ids + token.ids
            self._space_ids = () if told else ids
            if told:
                self.tokens.append(replace(token, text=told, ids=ids))
        return self.tokens[before:]


def log_probabilities(tokens: Sequence[Token]) -> list[LogProb]:
    """The wire's form of the tokens' probabilities."""
    return [LogProb(token=t.text, logprob=t.logprob, bytes=list(t.text.encode())) for t in tokens]


def spoken_words(words: Sequence[SaidWord] | None, *, with_logprobs: bool) -> list[SpokenWord] | None:
    """The wire's form of words and their times; None: there are none to tell."""
    if words is None:
        return None
    return [
        SpokenWord(
            word=word.text,
            start=round(word.start / SAMPLE_RATE, 3),
            end=round(word.end / SAMPLE_RATE, 3),
            logprob=word.logprob if with_logprobs else None,
        )
        for word in words
    ]


def usage(options: Transcription, audio_samples: int, tokens: Sized) -> TokenUsage | DurationUsage:
    """What an item cost, in the unit that OpenAI has for the model's name: tokens for the gpt-4o family, else seconds.

    Text tokens of a prompt are counted in words, since the tokenizer meant by the name is not ours.
    """
    seconds = audio_samples / SAMPLE_RATE
    if not options.model.startswith("gpt-4o"):
        return DurationUsage(seconds=math.ceil(seconds))
    audio_tokens = math.ceil(seconds * _AUDIO_TOKENS_PER_SECOND)
    text_tokens = len((options.prompt or "").split())
    return TokenUsage(
        total_tokens=audio_tokens + text_tokens + len(tokens),
        input_tokens=audio_tokens + text_tokens,
        input_token_details=InputTokenDetails(text_tokens=text_tokens, audio_tokens=audio_tokens),
        output_tokens=len(tokens),
    )
