"""Hypotheses to deltas, probabilities and usage."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auricle.audio.formats import SAMPLE_RATE
from auricle.protocol.config import Transcription
from auricle.protocol.events import DurationUsage, InputTokenDetails, LogProb, TokenUsage
from auricle.session.jobs import Token
from auricle.session.transcript import ItemTranscript, log_probabilities, usage


def deltas(*steps: list[str]) -> list[str]:
    """What is told at each step."""
    transcript = ItemTranscript()
    told = ["".join(token.text for token in transcript.extend([Token(text, -1.0) for text in step])) for step in steps]
    assert transcript.text == "".join(told)
    return told


def test_space_at_the_front_is_never_told() -> None:
    assert deltas([" ", "\n", "  Good", " morning"]) == ["Good morning"]


def test_space_at_the_end_is_never_told() -> None:
    assert deltas(["Good ", " \n"]) == ["Good"]


def test_space_between_steps_comes_with_the_text_that_follows() -> None:
    assert deltas(["Good "], [" "], [], ["morning"]) == ["Good", "", "", "  morning"]


def test_nothing_but_space_is_no_text() -> None:
    assert deltas([" "], ["\t", ""]) == ["", ""]


def test_tokens_keep_their_probabilities_and_ids() -> None:
    transcript = ItemTranscript()
    told = transcript.extend([Token(" Good ", -0.1, (7, 8)), Token("", -9.0), Token("day", -0.2, (9,))])
    assert told == [Token("Good", -0.1, (7, 8)), Token(" day", -0.2, (9,))]
    assert transcript.tokens == told


@given(st.lists(st.lists(st.text(alphabet="ab \n\u3000é", max_size=4), max_size=5), max_size=6))
def test_joined_deltas_are_the_text_of_any_tokens(steps: list[list[str]]) -> None:
    told = "".join(deltas(*steps))
    assert told == "".join(text for step in steps for text in step).strip()


def test_log_probabilities_carry_utf8_bytes() -> None:
    assert log_probabilities([Token("é", -0.25)]) == [LogProb(token="é", logprob=-0.25, bytes=[195, 169])]


@pytest.mark.parametrize(("samples", "seconds"), [(1, 1), (SAMPLE_RATE, 1), (round(2.796 * SAMPLE_RATE), 3)])
def test_usage_is_whole_seconds_for_models_by_the_minute(samples: int, seconds: int) -> None:
    assert usage(Transcription(model="whisper-1"), samples, []) == DurationUsage(seconds=seconds)


def test_usage_is_tokens_for_the_gpt_4o_family() -> None:
    options = Transcription(model="gpt-4o-mini-transcribe", prompt="two words")
    assert usage(options, round(1.6 * SAMPLE_RATE), [Token("a", 0), Token("b", 0), Token("c", 0)]) == TokenUsage(
        total_tokens=21,
        input_tokens=18,
        input_token_details=InputTokenDetails(text_tokens=2, audio_tokens=16),
        output_tokens=3,
    )
