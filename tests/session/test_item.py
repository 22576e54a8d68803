"""An item as the client sees it."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from fakes import OPTIONS

from auricle.audio.formats import SAMPLE_RATE, AudioFormat
from auricle.protocol.config import ServerVad
from auricle.session.context import RecentSpeech
from auricle.session.decoding import ItemDecoding
from auricle.session.item import MAX_AUDIO_LENGTH, SessionItem
from auricle.session.jobs import Token
from auricle.session.turns import TurnRule

START = 1_000
"""Where the items begin."""


def item_of(seconds: float = 1.0) -> SessionItem:
    samples = np.full(round(seconds * SAMPLE_RATE), 0.25, np.float32)
    rule = TurnRule.of(ServerVad())
    decoding = ItemDecoding(START, rule, lambda start, end: samples[start - START : end - START], RecentSpeech())
    item = SessionItem("item_1", START, decoding, OPTIONS, with_logprobs=False)
    item.commit(samples)
    return item


def test_an_item_has_no_transcript_before_it_is_finished() -> None:
    item = item_of()
    item.decoding.transcript.extend([Token("Hello", -1.0)])
    assert item.on_wire().content[0].transcript is None
    item.is_finished = True
    assert item.on_wire().content[0].transcript == "Hello"


def test_an_item_without_transcription_has_no_transcript() -> None:
    item = item_of()
    item.options, item.is_finished = None, True
    assert item.on_wire().content[0].transcript is None


def test_audio_comes_only_where_it_is_asked_for() -> None:
    assert "audio" not in item_of().on_wire().model_dump()["content"][0]


@pytest.mark.parametrize(
    ("audio_format", "size"),
    [
        (AudioFormat("audio/pcm", 24_000), 48_000),
        (AudioFormat("audio/pcm", 16_000), 32_000),
        (AudioFormat("audio/pcmu", 8_000), 8_000),
        (AudioFormat("audio/pcma", 8_000), 8_000),
    ],
)
def test_audio_comes_in_the_format_of_the_session(audio_format: AudioFormat, size: int) -> None:
    audio = item_of().on_wire(audio_format).content[0].audio
    assert audio is not None
    assert len(base64.b64decode(audio)) == size


def test_audio_that_no_client_could_receive_is_left_out() -> None:
    longest_s = MAX_AUDIO_LENGTH * 3 / 4 / 48_000
    audio_format = AudioFormat("audio/pcm", 24_000)
    audio = item_of(longest_s - 0.1).on_wire(audio_format).content[0].audio
    assert audio is not None
    assert len(audio) < 2**20 - 1_000
    assert item_of(longest_s + 0.1).on_wire(audio_format).content[0].audio is None


def test_audio_that_was_dropped_is_left_out() -> None:
    item = item_of()
    item.drop_audio()
    assert item.on_wire(AudioFormat("audio/pcm", 24_000)).content[0].audio is None
