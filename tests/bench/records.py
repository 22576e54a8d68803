"""Records of sessions that never were: what a server might have told, event by event."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from auricle.bench.corpus import Clip, Word
from auricle.bench.session_run import ANNOUNCED, COMMITTED, COMPLETED, DELTA, FAILED, STARTED, STOPPED, Record

CHUNK_S = 0.1

WORDS = (Word("It", 0.2, 0.3), Word("was", 0.3, 0.5), Word("the", 0.5, 0.6), Word("best", 0.6, 1.0))


def clip(**fields: Any) -> Clip:
    """Two seconds in which "It was the best" is said from 0.2 to 1.0 s."""
    known: dict[str, Any] = {"text": "It was the best.", "words": WORDS, "speech_s": (0.2, 1.0), "group": "clean"}
    return Clip("clip", Path("clip.wav"), "clean", **known | fields)


def record(*events: tuple[float, dict[str, Any]], **fields: Any) -> Record:
    """A session whose chunks were sent in real time from second 100 on; events have times from that start."""
    chunks = 20
    return Record(
        fields.pop("clip", clip()),
        CHUNK_S,
        sent_s=[100 + CHUNK_S * index for index in range(chunks)],
        late_s=[0.0] * chunks,
        held_s=[0.0] * chunks,
        events=[(100 + at_s, event) for at_s, event in events],
        **fields,
    )


def started(item_id: str = "a") -> dict[str, Any]:
    return {"type": STARTED, "item_id": item_id, "audio_start_ms": 0}


def stopped(item_id: str = "a", audio_end_ms: int = 1500) -> dict[str, Any]:
    return {"type": STOPPED, "item_id": item_id, "audio_end_ms": audio_end_ms}


def committed(item_id: str = "a", previous: str | None = None) -> dict[str, Any]:
    return {"type": COMMITTED, "item_id": item_id, "previous_item_id": previous}


def added(item_id: str = "a") -> dict[str, Any]:
    return {"type": ANNOUNCED[0], "item": {"id": item_id}}


def delta(text: str, item_id: str = "a") -> dict[str, Any]:
    return {"type": DELTA, "item_id": item_id, "delta": text}


def completed(text: str, item_id: str = "a") -> dict[str, Any]:
    return {"type": COMPLETED, "item_id": item_id, "transcript": text}


def failed(item_id: str = "a") -> dict[str, Any]:
    return {"type": FAILED, "item_id": item_id, "error": {"code": "transcription_error", "message": "No."}}


def turn(item_id: str = "a", previous: str | None = None, text: str = "It was the best.") -> list[dict[str, Any]]:
    """All events of one turn."""
    return [
        started(item_id),
        stopped(item_id),
        committed(item_id, previous),
        added(item_id),
        delta(text, item_id),
        completed(text, item_id),
    ]


def at_once(*events: dict[str, Any], **fields: Any) -> Record:
    """A record in which only the order of events matters."""
    return record(*((1.0, event) for event in events), **fields)
