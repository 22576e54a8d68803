"""What a benchmark is asked for: the command line's words as settings of a session. Knows no server."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from auricle.audio.formats import AudioFormat

DELAYS = ("minimal", "low", "medium", "high", "xhigh")
EAGERNESSES = ("auto", "low", "medium", "high")
DEFAULT_SILENCE_MS = 500
_MARGIN_S = 0.7
"""Silence after a recording beyond what ends a turn."""
_SEMANTIC_SILENCE_S = {"high": 2.0, "auto": 4.0, "medium": 4.0, "low": 8.0}
"""The longest that a turn waits in silence, by eagerness."""

_FORMATS = {
    "pcm16": AudioFormat("audio/pcm", 24_000),
    "g711_ulaw": AudioFormat("audio/pcmu", 8_000),
    "g711_alaw": AudioFormat("audio/pcma", 8_000),
}
_PCM_RATES_HZ = range(8_000, 48_001)


@dataclass(frozen=True)
class Options:
    """One benchmark. Raises ValueError where a value is wrong."""

    audio: Path | None = None
    kind: str | None = None
    """Several are separated by commas."""
    url: str | None = None
    api_key: str | None = None
    pid: int | None = None
    sessions: int = 1
    idle: int = 0
    speed: float = 1.0
    """1: real time; 0: as fast as it goes."""
    turn_detection: str = f"server_vad:{DEFAULT_SILENCE_MS}"
    format: str = "pcm16"
    delay: str | None = None
    """Several are separated by commas."""
    model: str = "gpt-4o-transcribe"
    language: str | None = None
    silence: float | None = None
    """Seconds."""
    chunk_ms: float = 100
    ramp_s: float = 5.0
    timeout_s: float = 30.0
    find_capacity: bool = False
    p95_ms: float = 400
    step_s: float = 20.0
    max_sessions: int = 1024
    json: Path | None = None
    chart: Path | None = None

    def __post_init__(self) -> None:
        parse_format(self.format), parse_turn_detection(self.turn_detection)
        for delay in filter(None, self.delays):
            if delay not in DELAYS:
                raise ValueError(f"--delay: {delay!r} is none of {', '.join(DELAYS)}.")
        if self.find_capacity and (len(self.delays) > 1 or self.speed != 1):
            raise ValueError("--find-capacity takes one --delay, and real time.")
        if self.chart and self.chart.suffix.lower() not in (".png", ".svg", ".pdf"):
            raise ValueError(f"--chart: {self.chart} must end in .png, .svg or .pdf.")
        for path in filter(None, (self.json, self.chart)):
            # Told now, not after an hour of measuring.
            if not path.absolute().parent.is_dir():
                raise ValueError(f"There is no folder {path.absolute().parent} for {path.name}.")

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of recordings to play; empty for all."""
        return tuple(self.kind.split(",")) if self.kind else ()

    @property
    def delays(self) -> tuple[str | None, ...]:
        """A run each; None leaves the delay to the server."""
        return tuple(self.delay.split(",")) if self.delay else (None,)

    @property
    def audio_format(self) -> AudioFormat:
        """What the audio is sent as."""
        return parse_format(self.format)

    @property
    def turns(self) -> dict[str, Any] | None:
        """`turn_detection` of the session object."""
        return parse_turn_detection(self.turn_detection)

    @property
    def trailing_silence_s(self) -> float:
        """Silence after each recording, in seconds: what was asked for, or enough to end a turn."""
        if self.silence is not None:
            return self.silence
        if self.turns is None:
            return 0.0
        if self.turns["type"] == "semantic_vad":
            return _SEMANTIC_SILENCE_S[self.turns["eagerness"]] + _MARGIN_S
        return float(self.turns["silence_duration_ms"]) / 1000 + _MARGIN_S

    def audio_input(self, delay: str | None) -> dict[str, Any]:
        """`session.audio.input` of a session."""
        wire_format: dict[str, Any] = {"type": self.audio_format.type}
        if self.audio_format.type == "audio/pcm":
            wire_format["rate"] = self.audio_format.rate_hz
        transcription = {"model": self.model, "language": self.language, "delay": delay}
        return {
            "format": wire_format,
            "transcription": {name: value for name, value in transcription.items() if value is not None},
            "turn_detection": self.turns,
        }


def parse_format(text: str) -> AudioFormat:
    """`pcm16`, `g711_ulaw`, `g711_alaw` or `pcm@RATE`. Raises ValueError."""
    if text in _FORMATS:
        return _FORMATS[text]
    match = re.fullmatch(r"pcm@(\d+)", text)
    if match is None or int(match[1]) not in _PCM_RATES_HZ:
        raise ValueError(f"--format: {text!r} is none of {', '.join(_FORMATS)}, pcm@RATE (8000 to 48000 Hz).")
    return AudioFormat("audio/pcm", int(match[1]))


def parse_turn_detection(text: str) -> dict[str, Any] | None:
    """`server_vad[:SILENCE_MS]`, `semantic_vad[:EAGERNESS]` or `none`. Raises ValueError."""
    name, _, value = text.partition(":")
    if text == "none":
        return None
    if name == "server_vad" and (not value or value.isdecimal()):
        silence_ms = int(value) if value else DEFAULT_SILENCE_MS
        return {"type": name, "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": silence_ms}
    if name == "semantic_vad" and (not value or value in EAGERNESSES):
        return {"type": name, "eagerness": value or "auto"}
    raise ValueError(
        f"--turn-detection: {text!r} is none of server_vad[:SILENCE_MS], semantic_vad[:{'|'.join(EAGERNESSES)}], none."
    )
