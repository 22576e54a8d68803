"""One recording's story: what it knows, and that it is drawn. Through the command line, and with the real models."""

from __future__ import annotations

import itertools
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from clips import silence, two_cities
from fakes import OPTIONS, LengthEngine, LoudnessDetector
from test_cli import auricle, error_line, text_of, write_wav
from words import word_error_rate

from auricle.audio.files import read_audio
from auricle.engines.base import Engine
from auricle.engines.registry import catalog, load_engine
from auricle.engines.silero import SileroDetector
from auricle.explain import MAX_STORY_S, Story, draw, tell
from auricle.protocol.config import ServerVad, SessionConfig, Transcription
from auricle.settings import DEFAULT_MODEL, Settings

SAID = (
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness, "
    "it was the epoch of belief"
)
"""What is said in the first 10 s."""


@pytest.fixture(scope="module")
def engine() -> Engine:
    return load_engine(catalog(Settings()).spec(DEFAULT_MODEL), 2)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_wav(tmp_path_factory.mktemp("recordings") / "two $cities.wav", two_cities()[: 10 * 16_000])


@pytest.fixture(scope="module")
def story(recording: Path, engine: Engine) -> Story:
    return told(recording, engine, ServerVad(silence_duration_ms=300))


def told(recording: Path, engine: Engine, turn_detection: ServerVad | None) -> Story:
    config = SessionConfig(
        transcription=Transcription(model=DEFAULT_MODEL), turn_detection=turn_detection, turn_detection_given=True
    )
    return tell(read_audio(recording), config, SileroDetector.embedded(), engine)


def fake_story(*, loud_s: float = 1.6, silence_s: float = 1.6, times: int = 1) -> Story:
    """Of a loud noise, which fakes take for speech."""
    config = SessionConfig(transcription=OPTIONS, turn_detection=ServerVad(silence_duration_ms=512))
    parts = [np.full(round(loud_s * 16_000), 0.8, np.float32), silence(silence_s)]
    return tell(np.concatenate(parts * times), config, LoudnessDetector(), LengthEngine())


def size_of_png(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", data[16:24])
    return width, height


# The story


def test_turns_follow_each_other(story: Story):
    assert len(story.turns) >= 2
    for turn in story.turns:
        times_s = [0, turn.start_s, *story.speech_s(turn), turn.end_s, turn.committed_s]
        assert times_s == sorted(times_s)
    assert all(one.end_s <= other.start_s for one, other in itertools.pairwise(story.turns))


def test_deltas_join_to_each_turns_transcript(story: Story):
    for turn in story.turns:
        assert "".join(delta for _, delta in turn.deltas) == turn.transcript
        assert turn.completed_s is not None
        times_s = [turn.start_s, *(at_s for at_s, _ in turn.deltas), turn.completed_s]
        assert times_s == sorted(times_s)
    assert word_error_rate(SAID, " ".join(turn.transcript for turn in story.turns)) < 0.2


def test_text_comes_while_somebody_speaks(story: Story):
    assert any(at_s < story.speech_s(turn)[1] for turn in story.turns for at_s, _ in turn.deltas)


def test_every_window_has_its_probability(story: Story):
    times_s, probabilities = zip(*story.probabilities, strict=True)
    assert times_s == pytest.approx([0.032 * index for index in range(len(times_s))])
    assert all(0 <= probability <= 1 for probability in probabilities)
    assert story.recording_s == 10
    assert 10 <= story.end_s < 11


def test_without_turn_detection_there_is_one_turn(recording: Path, engine: Engine):
    [turn] = told(recording, engine, None).turns
    assert (turn.start_s, turn.end_s) == (0, 10)
    assert word_error_rate(SAID, turn.transcript) < 0.2


def test_silence_has_no_turns():
    assert fake_story(loud_s=0).turns == []


def test_only_the_beginning_of_a_long_recording_is_played():
    story = fake_story(loud_s=6, silence_s=4, times=14)
    assert story.recording_s == MAX_STORY_S
    assert len(story.turns) == 12


# The picture


@pytest.mark.parametrize("seconds", [0.0, 1.6, 100.0], ids=lambda seconds: f"{seconds:g} s")
def test_stories_of_any_length_are_drawn(tmp_path: Path, seconds: float):
    story = fake_story(loud_s=seconds)
    story.scores = [(seconds + 0.4, 0.3), (seconds + 0.8, 0.9)]
    draw(story, tmp_path / "story.png", "$title$", "_subtitle_")
    width, height = size_of_png(tmp_path / "story.png")
    assert width == 1600
    assert height > 300 * max(seconds / 16, 1)


# The command


def test_a_recording_is_explained(recording: Path, tmp_path: Path, story: Story):
    picture = tmp_path / "story.png"
    flags = ["--turn-detection", "server_vad:300", "--delay", "medium"]
    text = text_of(auricle("transcribe", "--explain", picture, *flags, recording))
    assert text == " ".join(turn.transcript for turn in story.turns) + "\n"
    assert size_of_png(picture)[0] == 1600


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--explain", "story.png", "one.wav", "two.wav"], "--explain takes one recording"),
        (["--explain", "story.png", "--realtime", "http://127.0.0.1:9/v1", "one.wav"], "no --realtime"),
        (["--explain", "story.png", "nowhere.wav"], "'nowhere.wav'.*No such file"),
        (["--explain", "story.txt", "one.wav"], "story.txt must end in .png"),
        (["--explain", "nowhere/story.png", "one.wav"], "no folder .*nowhere"),
        (["--explain", "story.png", "--turn-detection", "vad", "one.wav"], "--turn-detection: 'vad'"),
        (["--explain", "story.png", "--delay", "none", "one.wav"], "delay: .*'minimal'"),
        (["--delay", "low", "one.wav"], "for --explain"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_explained_is_told_in_one_line(arguments: list[str], message: str):
    assert re.search(message, error_line(auricle("transcribe", *arguments)))


def test_a_missing_matplotlib_is_told_with_the_command_that_installs_it(recording: Path, tmp_path: Path):
    program = "import sys; sys.modules['matplotlib'] = None; from auricle.cli import main; main()"
    arguments = ["transcribe", "--explain", str(tmp_path / "story.png"), str(recording)]
    result = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=30)
    assert "pip install 'auricle[bench]'" in error_line(result)
