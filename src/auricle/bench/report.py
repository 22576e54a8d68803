"""What a run comes to: its records as numbers, and these as JSON. Knows no server, no terminal and no pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from auricle.bench.latency import MEASURES, Latency, Measure, latencies, transcript
from auricle.bench.promises import PROMISES, Promise, Violation, violations
from auricle.bench.scoring import Score
from auricle.bench.server import Usage
from auricle.bench.session_run import ERROR, FAILED, Record

MAX_LATE_S = 0.025
"""Where more than 5 % of the chunks are later than this, the generator did not keep up."""
_MAX_EXAMPLES = 20
_NOT_TO_COMMIT = "input_audio_buffer_commit_empty"


@dataclass(frozen=True)
class Percentiles:
    """A distribution, in milliseconds."""

    count: int
    p50: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, values_s: Sequence[float]) -> Percentiles | None:
        """Of values in seconds, between which is interpolated; None if there are none."""
        if not values_s:
            return None
        values_ms = np.array(values_s) * 1000
        p50, p95, p99 = (float(value) for value in np.percentile(values_ms, (50, 95, 99)))
        return cls(len(values_s), p50, p95, p99, float(values_ms.max()))

    def as_json(self) -> dict[str, float]:
        """Milliseconds, to a tenth."""
        return {"count": self.count} | {name: round(getattr(self, name), 1) for name in ("p50", "p95", "p99", "max")}


@dataclass
class ClipResult:
    """One recording: what was told of it."""

    record: Record
    transcript: str
    wer_percent: float | None

    def as_json(self) -> dict[str, Any]:
        """One entry of `results`."""
        clip = self.record.clip
        return {
            "id": clip.id,
            "group": clip.group,
            "reference": clip.text,
            "transcript": self.transcript,
            "wer_percent": _rounded(self.wer_percent, 2),
            "problem": self.record.problem,
        }


@dataclass
class RunReport:
    """One run: all its numbers."""

    delay: str | None
    sessions: int
    idle: int
    speed: float
    audio_s: float
    wall_s: float
    usage: Usage | None
    results: list[ClipResult] = field(default_factory=list)
    scores: dict[str, Score] = field(default_factory=dict)
    """By group of clips."""
    samples_s: dict[Measure, list[float]] = field(default_factory=dict)
    """All latencies."""
    broken: list[Violation] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    """By code; `connection` where a session could not be opened, was closed, or got no answer."""
    messages: dict[str, str] = field(default_factory=dict)
    """The first message of each code."""
    late: Percentiles | None = None
    held: Percentiles | None = None

    def add_error(self, code: str, message: str) -> None:
        """Count an error."""
        self.errors[code] += 1
        self.messages.setdefault(code, message)

    @property
    def percentiles(self) -> dict[Measure, Percentiles]:
        """Of each measure that has any values."""
        found = {name: Percentiles.of(self.samples_s.get(name, [])) for name in MEASURES}
        return {name: value for name, value in found.items() if value is not None}

    @property
    def promises(self) -> dict[Promise, int]:
        """How often each was broken."""
        counts = Counter(violation.promise for violation in self.broken)
        return {name: counts[name] for name in PROMISES}

    @property
    def score(self) -> Score:
        """All groups together."""
        return sum(self.scores.values(), Score())

    @property
    def cpu_percent_per_stream(self) -> float | None:
        """CPU time for a second of audio, in percent: the share of a core that a session in real time takes."""
        return 100 * self.usage.cpu_s / self.audio_s if self.usage and self.audio_s else None

    @property
    def kept_up(self) -> bool:
        """Whether the generator sent the audio in time, but for what the server held up."""
        return self.late is None or self.late.p95 <= 1000 * MAX_LATE_S

    @property
    def is_clean(self) -> bool:
        """Whether no promise was broken and no error came."""
        return not self.broken and not self.errors

    def as_json(self) -> dict[str, Any]:
        """One entry of `runs`."""
        return {
            "delay": self.delay,
            "sessions": self.sessions,
            "idle_sessions": self.idle,
            "speed": self.speed,
            "clips": len(self.results),
            "audio_s": round(self.audio_s, 3),
            "wall_s": round(self.wall_s, 3),
            "accuracy": {group: _score_json(score) for group, score in self.scores.items()},
            "latency_ms": {name: value.as_json() for name, value in self.percentiles.items()},
            "violations": dict(self.promises),
            "violation_examples": [vars(violation) for violation in self.broken[:_MAX_EXAMPLES]],
            "errors": {code: {"count": n, "message": self.messages[code]} for code, n in self.errors.items()},
            "generator": {
                "kept_up": self.kept_up,
                "late_ms": self.late.as_json() if self.late else None,
                "held_ms": self.held.as_json() if self.held else None,
            },
            "server": self._usage_json(),
            "results": [result.as_json() for result in self.results],
        }

    def _usage_json(self) -> dict[str, float | None] | None:
        if self.usage is None:
            return None
        return {
            "cpu_s": round(self.usage.cpu_s, 2),
            "cpu_percent": round(self.usage.cpu_percent, 1),
            "cpu_percent_per_stream": _rounded(self.cpu_percent_per_stream, 2),
            "memory_mib": round(self.usage.memory_mib, 1),
            "peak_memory_mib": round(self.usage.peak_memory_mib, 1),
        }


def judge(report: RunReport, records: Iterable[Record], window_s: tuple[float, float] | None = None) -> None:
    """Fill a report from its records. With a window, only latencies of audio that was sent in it count."""
    late_s: list[float] = []
    held_s: list[float] = []
    for record in records:
        text = transcript(record)
        result = ClipResult(record, text, None)
        if not record.is_cut:
            score = report.scores.setdefault(record.clip.group, Score())
            result.wer_percent = score.add(record.clip.text, text, record.clip.scoring, record.clip.language)
        report.results.append(result)
        report.broken += violations(record)
        for code, message in _errors(record):
            report.add_error(code, message)
        for latency in latencies(record):
            if _is_in(latency, window_s):
                report.samples_s.setdefault(latency.measure, []).append(latency.value_s)
        late_s += record.late_s
        held_s += record.held_s
    report.late = Percentiles.of(late_s) if report.speed else None
    report.held = Percentiles.of(held_s)


def _is_in(latency: Latency, window_s: tuple[float, float] | None) -> bool:
    return window_s is None or window_s[0] <= latency.at_s <= window_s[1]


def _errors(record: Record) -> Iterator[tuple[str, str]]:
    """Codes and messages of all that went wrong in a session."""
    is_told = False
    for _, event in record.events:
        if event.get("type") not in (ERROR, FAILED):
            continue
        error = event["error"]
        code = error.get("code") or error.get("type") or "unknown"
        # The turn ended by itself just before it was committed by hand, as it might stay open.
        if code == _NOT_TO_COMMIT and record.commit_s is not None and record.has_turns:
            continue
        is_told = True
        yield code, error.get("message") or ""
    if record.problem and not is_told:
        yield "connection", record.problem


def _score_json(score: Score) -> dict[str, Any]:
    names = ("clips", "words", "substitutions", "deletions", "insertions")
    return {name: getattr(score, name) for name in names} | {"wer_percent": _rounded(score.percent, 2)}


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


@dataclass(frozen=True)
class CapacityStep:
    """One step of the search for the number of sessions that a machine carries."""

    run: RunReport
    measure: Measure
    latency: Percentiles | None
    failure: str | None
    """Why this number of sessions is too many; None if it isn't."""

    @property
    def is_passed(self) -> bool:
        return self.failure is None

    @property
    def is_scanty(self) -> bool:
        """Whether it is judged by so few turns that their 95th percentile is the slowest one."""
        return self.latency is not None and self.latency.count < 20

    @classmethod
    def judged(cls, run: RunReport, p95_ms: float, is_by_hand: bool) -> CapacityStep:
        """Whether a run was quick enough, without errors, and its generator too."""
        measure: Measure = "commit_to_completed" if is_by_hand else "stop_to_completed"
        latency = run.percentiles.get(measure)
        if run.errors:
            failure: str | None = f"errors: {', '.join(f'{code} ({n})' for code, n in run.errors.items())}"
        elif run.broken:
            failure = f"{len(run.broken)} broken promises: {PROMISES[run.broken[0].promise]}"
        elif latency is None:
            failure = "no turn ended in the step: it needs more time (--step-s)"
        elif latency.p95 > p95_ms:
            failure = f"p95 over {p95_ms:g} ms"
        elif not run.kept_up:
            failure = "the load generator did not keep up"
        else:
            failure = None
        return cls(run, measure, latency, failure)

    def as_json(self) -> dict[str, Any]:
        """One entry of `steps`."""
        run = self.run.as_json()
        del run["results"], run["accuracy"]
        return {"is_passed": self.is_passed, "failure": self.failure, "measure": self.measure, **run}
