"""Records as numbers: percentiles, windows, errors, the verdicts of a run and of a step of the search."""

from __future__ import annotations

import json

import pytest
from bench.records import at_once, clip, committed, failed, record, started, stopped, turn

from auricle.bench.capacity import CapacitySearch
from auricle.bench.report import CapacityStep, Percentiles, RunReport, judge
from auricle.bench.server import Usage
from auricle.bench.session_run import ERROR, Record


def judged(*records: Record, window_s: tuple[float, float] | None = None) -> RunReport:
    report = RunReport(None, 1, 0, 1.0, audio_s=10.0, wall_s=5.0, usage=Usage(cpu_s=2.0, wall_s=5.0))
    judge(report, records, window_s)
    return report


def error(code: str | None) -> dict:
    return {"type": ERROR, "error": {"type": "server_error", "code": code, "message": "A message."}}


def test_percentiles_are_interpolated_and_in_milliseconds():
    found = Percentiles.of([index / 1000 for index in range(101)])
    assert found == Percentiles(101, 50, 95, 99, 100)
    assert Percentiles.of([]) is None
    assert Percentiles.of([0.25]) == Percentiles(1, 250, 250, 250, 250)


def test_a_clean_run_is_clean():
    report = judged(at_once(*turn()), at_once(*turn(text="It was the worst.")))
    assert report.is_clean
    assert report.scores["clean"].percent == 12.5
    assert report.percentiles["stop_to_completed"].count == 2
    assert report.usage.cpu_percent == 40
    assert report.cpu_percent_per_stream == 20
    json.dumps(report.as_json())


def test_errors_are_counted_by_code_and_keep_their_first_message():
    report = judged(
        at_once(error("server_overloaded"), problem="closed"),
        at_once(error(None)),
        at_once(committed(), failed()),
        record(problem="No connection."),
    )
    assert report.errors == {"server_overloaded": 1, "server_error": 1, "transcription_error": 1, "connection": 1}
    assert report.messages["connection"] == "No connection."
    assert not report.is_clean


def test_a_turn_that_ended_by_itself_before_it_was_committed_is_no_error():
    refused = error("input_audio_buffer_commit_empty")
    assert judged(at_once(*turn(), refused, commit_s=1.0)).is_clean
    assert judged(at_once(refused, commit_s=1.0)).errors == {"input_audio_buffer_commit_empty": 1}


def test_what_was_not_played_to_its_end_is_not_scored():
    report = judged(at_once(*turn(text="It was"), is_cut=True))
    assert report.scores == {}
    assert report.results[0].transcript == "It was"


def test_only_audio_sent_in_the_window_is_measured():
    early, late = at_once(*turn()), at_once(*turn())
    late.sent_s = [sent_s + 50 for sent_s in late.sent_s]
    report = judged(early, late, window_s=(140, 160))
    assert report.percentiles["stop_to_completed"].count == 1


def test_a_generator_that_is_often_late_did_not_keep_up():
    slow = record()
    assert judged(slow).kept_up
    slow.late_s[:2] = [0.2, 0.2]
    assert not judged(slow).kept_up


def step(report: RunReport, p95_ms: float = 400, is_by_hand: bool = False) -> str | None:
    return CapacityStep.judged(report, p95_ms, is_by_hand).failure


def test_a_step_of_the_search_passes_only_if_all_is_well():
    # The audio of the turn's end is sent at 1.4 s.
    quick = [(1.0, started()), *((1.5, event) for event in turn()[1:])]
    slow_generator = record(*quick)
    slow_generator.late_s = [1.0] * len(slow_generator.late_s)
    assert step(judged(record(*quick))) is None
    assert step(judged(record(*quick)), p95_ms=90) == "p95 over 90 ms"
    assert "more time" in step(judged(record()))
    assert "more time" in step(judged(record(*quick)), is_by_hand=True)
    assert "server_overloaded (1)" in step(judged(record(*quick), at_once(error("server_overloaded"))))
    assert "items without an end" in step(judged(record(*quick), at_once(started(), stopped(), *turn()[2:4])))
    assert "generator" in step(judged(slow_generator))


@pytest.mark.parametrize("limit", [0, 1, 2, 7, 13, 40, 63, 64, 100, 700])
@pytest.mark.parametrize("first", [1, 5, 64])
def test_the_search_finds_the_limit_to_five_percent(limit: int, first: int):
    search = CapacitySearch(first, most=1024)
    tried = []
    while (sessions := search.sessions) is not None:
        assert sessions not in tried
        tried.append(sessions)
        search.tell(sessions, sessions <= limit)
    assert limit * 0.95 - 1 <= search.passed <= limit
    assert len(tried) < 20


def test_the_search_ends_at_the_most():
    search = CapacitySearch(1, most=10)
    tried = []
    while (sessions := search.sessions) is not None:
        tried.append(sessions)
        search.tell(sessions, True)
    assert tried == [1, 2, 4, 8, 10]
    assert search.passed == 10


def test_clips_are_scored_by_group():
    report = judged(
        record(clip=clip(group="noise", text="", words=(), speech_s=None)), record(*((1.0, e) for e in turn()))
    )
    assert list(report.scores) == ["noise", "clean"]
    assert report.score.words == 4
