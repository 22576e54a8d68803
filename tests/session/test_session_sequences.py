"""Any sequence of events, audio and answers: what always holds."""

from __future__ import annotations

import base64
import itertools

import numpy as np
import pytest
from fakes import OPTIONS, PCM_16K, said
from hypothesis import given, settings
from hypothesis import strategies as st
from sequences import ANSWERS, DIALECTS, Op, Play, answers, check, ops, speech

from auricle.audio.formats import SampleDecoder
from auricle.protocol.config import LOGPROBS, WORDS, Include, ServerVad, SessionConfig
from auricle.protocol.dialect import Dialect
from auricle.protocol.events import Append, RetrieveItem

ALL: list[Include] = [WORDS, LOGPROBS]


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
@settings(max_examples=300, deadline=None)
@given(
    steps=ops(),
    probabilities=speech(),
    config=st.sampled_from([None, ServerVad()]),
    include=st.sampled_from([None, ALL]),
)
def test_any_sequence_keeps_the_order_of_events(
    dialect: Dialect,
    steps: list[Op],
    probabilities: list[float],
    config: ServerVad | None,
    include: list[Include] | None,
) -> None:
    settings = SessionConfig(transcription=OPTIONS, turn_detection=config, include=include)
    play = Play(dialect, settings, probabilities, loads_at_once=False)
    for step in steps:
        play.step(step)
    play.finish()
    check(play)
    # Every event but `append` is answered once: with what it asked for or with an error.
    asked = sum(kind in ("commit", "clear", "update", "retrieve", "delete") for kind, _ in steps)
    by_hand = answers(play.told, ".committed") - answers(play.told, ".speech_stopped")
    answered = by_hand + sum(answers(play.told, kind) for kind in (".cleared", ".updated", ".retrieved", ".deleted"))
    errors = [event["error"] for event in play.told if event["type"] == "error"]
    refused = [
        error
        for error in errors
        if error["param"] != "audio" and (error["type"] != "server_error" or error["code"] == "model_unavailable")
    ]
    assert answered + len(refused) == asked


@settings(max_examples=200, deadline=None)
@given(steps=ops(), probabilities=speech(), turn_detection=st.sampled_from([None, ServerVad()]))
def test_what_is_told_does_not_depend_on_the_delay_of_detection_or_of_loading(
    steps: list[Op], probabilities: list[float], turn_detection: ServerVad | None
) -> None:
    """Detection answers and models are there at once in one session, and whenever the sequence says so in the other.

    The engine has no time for speech that goes on: how much of that is told when is a matter of time.
    """
    config = SessionConfig(transcription=OPTIONS, turn_detection=turn_detection, include=ALL)
    plays = [Play(DIALECTS[0], config, probabilities, loads_at_once=at_once) for at_once in (True, False)]
    for step in steps:
        if step[0] in ANSWERS:
            continue
        plays[1].step(step)
        if step[0] not in ("hear", "load"):
            plays[0].step(step)
            while plays[0].detect:
                plays[0].hear()
    for play in plays:
        while play.can_hear or play.loads:
            play.hear()
            if play.loads:
                play.load()
        play.drop_live()
        play.finish()
    assert plays[0].told == plays[1].told
    finals = [[job for job in play.all_decodes if job.is_final] for play in plays]
    for one, other in zip(*finals, strict=True):
        assert (one.stream_id, one.options) == (other.stream_id, other.options)
        np.testing.assert_array_equal(one.samples, other.samples)


@settings(max_examples=200, deadline=None)
@given(steps=ops(), probabilities=speech(), order=st.lists(st.integers(0, 20), max_size=10))
def test_texts_come_in_the_order_of_items_whatever_the_order_of_answers(
    steps: list[Op], probabilities: list[float], order: list[int]
) -> None:
    """Each item's text is the same and all texts are in the same order, if no item is deleted."""
    tellings = []
    for is_in_order in (True, False):
        play = Play(DIALECTS[0], SessionConfig(transcription=OPTIONS, include=ALL), probabilities)
        for step in steps:
            if step[0] not in (*ANSWERS, "delete", "retrieve"):
                play.step(step)
        while play.detect:
            play.hear()
        play.drop_live()
        numbers = iter(order)
        while play.decodes:
            job = play.decodes.pop(0 if is_in_order else next(numbers, 0) % len(play.decodes))
            play.take(play.session.receive_hypothesis(job.stream_id, said(f" the text of {job.stream_id}")))
            play.step(("align", 0))
        tellings.append([event for event in play.told if "transcription." in event["type"]])
        check(play)
    without_ids = [[{**event, "event_id": ""} for event in telling] for telling in tellings]
    assert without_ids[0] == without_ids[1]


@settings(max_examples=300, deadline=None)
@given(steps=ops(max_bytes=20_000), probabilities=speech(), turn_detection=st.sampled_from([None, ServerVad()]))
def test_no_audio_is_lost_and_none_is_in_two_items(
    steps: list[Op], probabilities: list[float], turn_detection: ServerVad | None
) -> None:
    """Each sample tells its position, so each item's audio tells where it was taken from."""
    play = Play(DIALECTS[0], SessionConfig(format=PCM_16K, transcription=OPTIONS), probabilities)
    play.step(("update", ("turn_detection", turn_detection and turn_detection.model_dump(exclude_none=True))))
    appended = 0
    for kind, value in steps:
        if kind == "append":
            position = np.arange(appended, appended + value // 2 + 1)
            data = (position % 65_536 - 32_768).astype("<i2").tobytes()
            errors = answers(play.told, "error")
            play.take(play.session.receive_event(Append(audio=base64.b64encode(data).decode())))
            if answers(play.told, "error") == errors:  # else there was no room for it
                appended += position.size
            play.hear()
        elif kind in ("commit", "clear", "text"):
            play.step((kind, value))
    play.finish()
    ranges = ranges_of_items(play)
    assert play.session.audio_ms == appended // 16
    for (_, end), (start, _) in itertools.pairwise(ranges):
        assert end <= start
    assert all(0 <= start < end <= appended for start, end in ranges)
    ranges_ms = [(start // 16, end // 16) for start, end in ranges]
    assert told_ranges_ms(play).items() <= dict(zip(check(play).items, ranges_ms, strict=True)).items()
    if turn_detection is None and not any(kind == "clear" for kind, _ in steps) and ranges:
        assert ranges[0][0] == 0
        assert all(end == start for (_, end), (start, _) in itertools.pairwise(ranges))


def ranges_of_items(play: Play) -> list[tuple[int, int]]:
    """Where each item's audio begins and ends, in samples, as the audio itself tells."""
    ranges = []
    before = 0
    for item_id in check(play).items:
        (retrieved,) = play.session.receive_event(RetrieveItem(item_id=item_id))
        audio = retrieved.item.content[0].audio
        samples = SampleDecoder(PCM_16K.audio_format).decode(base64.b64decode(audio))
        values = np.rint(samples * 32_768).astype(int) + 32_768
        np.testing.assert_array_equal(np.diff(values) % 65_536, 1)
        start = int(values[0])
        while start < before:
            start += 65_536
        ranges.append((start, start + samples.size))
        before = ranges[-1][1]
    return ranges


def told_ranges_ms(play: Play) -> dict[str, tuple[int, int]]:
    """Where the audio of each whole turn begins and ends, as the events tell."""
    starts: dict[str, int] = {}
    ranges = {}
    for event in play.told:
        if event["type"].endswith("speech_started"):
            starts[event["item_id"]] = event["audio_start_ms"]
        if event["type"].endswith("speech_stopped"):
            ranges[event["item_id"]] = (starts[event["item_id"]], event["audio_end_ms"])
    return ranges
