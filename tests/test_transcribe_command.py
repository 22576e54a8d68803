"""`auricle transcribe` on folders, patterns, addresses and standard input, and the files that it writes."""

from __future__ import annotations

import functools
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from clips import silence
from wire import BEST_OF_TIMES, best_of_times
from words import word_error_rate

from auricle.audio.formats import SAMPLE_RATE
from auricle.transcribe_command import Source, sources_of


def write_wav(path: Path, *, is_silent: bool = False) -> Path:
    import wave

    path.parent.mkdir(parents=True, exist_ok=True)
    samples = silence(1) if is_silent else best_of_times()
    with wave.open(str(path), "wb") as recording:
        recording.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        recording.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return path


def transcribe(
    *arguments: str | Path, folder: Path | None = None, stdin: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AURICLE_")}
    command = [sys.executable, "-m", "auricle", "transcribe", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, timeout=60, env=environment, cwd=folder, input=stdin)


def is_right(text: str) -> bool:
    return word_error_rate(BEST_OF_TIMES, text) < 0.2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Speech, silence in a folder below, and a file that is no recording."""
    root = tmp_path_factory.mktemp("recordings")
    write_wav(root / "speech.wav")
    write_wav(root / "below" / "silence.wav", is_silent=True)
    (root / "notes.txt").write_text("Not audio.")
    return root


# Which recordings


def names(*arguments: str | Path) -> list[str]:
    return [source.name for source in sources_of(map(str, arguments))]


def places(*arguments: str | Path) -> list[str]:
    return [str(source.place) for source in sources_of(map(str, arguments))]


def test_folders_give_their_recordings_and_patterns_their_matches(folder: Path) -> None:
    assert names(folder) == [str(folder / "below" / "silence.wav"), str(folder / "speech.wav")]
    assert places(folder) == ["below/silence", "speech"]
    assert names(folder / "*.wav") == [str(folder / "speech.wav")]
    assert names(folder / "**" / "*.wav") == [str(folder / "below" / "silence.wav"), str(folder / "speech.wav")]
    assert sources_of(["-"]) == [Source("-", Path("stdin"))]
    assert sources_of(["http://127.0.0.1:1/a/talk.mp3?x=1"])[0].place == Path("talk")


def test_a_recording_that_is_named_twice_is_one(folder: Path) -> None:
    assert names(folder / "speech.wav", folder, folder / "*.wav").count(str(folder / "speech.wav")) == 1


def test_texts_of_recordings_with_one_name_have_places_of_their_own() -> None:
    assert places("a/talk.wav", "b/talk.mp3", "c/talk.mp3", "other.wav") == [
        "talk.wav",
        "talk.mp3",
        "talk.mp3-2",
        "other",
    ]


@pytest.mark.parametrize("argument", ["", "nothing-*.wav"])
def test_a_folder_or_pattern_with_nothing_in_it_is_told(tmp_path: Path, argument: str) -> None:
    with pytest.raises(ValueError, match=r"no audio|No file"):
        sources_of([str(tmp_path / argument)])


# What comes of them


def test_a_folder_becomes_a_folder_of_texts_and_goes_on_where_it_stopped(folder: Path, tmp_path: Path) -> None:
    result = transcribe(folder, "--output", tmp_path, "--format", "srt")
    assert (result.returncode, result.stdout) == (0, b""), result.stderr
    speech, quiet = tmp_path / "speech.srt", tmp_path / "below" / "silence.srt"
    assert is_right(" ".join(speech.read_text().splitlines()[2:]))
    assert quiet.read_text() == ""
    assert sorted(tmp_path.rglob("*.*")) == sorted([speech, quiet])  # no half files are left

    quiet.unlink()
    speech.write_text("mine")
    again = transcribe(folder, "--output", tmp_path, "--format", "srt")
    assert b"1 of 2 are done already" in again.stderr
    assert (speech.read_text(), quiet.read_text()) == ("mine", "")
    transcribe(folder / "speech.wav", "--output", tmp_path, "--format", "srt", "--overwrite")
    assert speech.read_text() != "mine"


def test_json_has_the_segments(folder: Path) -> None:
    result = transcribe(folder / "speech.wav", "--format", "json")
    content = json.loads(result.stdout)
    assert is_right(content["text"])
    assert content["segments"][0]["text"] in content["text"]
    assert 0 <= content["segments"][0]["start"] < content["segments"][-1]["end"] <= content["duration"]


def test_standard_input_is_a_recording(folder: Path) -> None:
    result = transcribe("-", stdin=(folder / "speech.wav").read_bytes())
    assert is_right(result.stdout.decode())


@pytest.fixture
def address(folder: Path) -> Iterator[str]:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_address_is_fetched(address: str) -> None:
    result = transcribe(f"{address}/speech.wav", f"{address}/nothing.wav")
    assert result.returncode == 1
    assert is_right(result.stdout.decode().partition("\n")[2])
    assert b"nothing.wav" in result.stderr
    assert b"404" in result.stderr


def test_types_of_files_are_known_without_the_systems_table(tmp_path: Path) -> None:
    for name in ("a.flac", "b.OGG", "c.m4a", "d.mkv", "list.m3u", "song.mid", "notes.txt"):
        (tmp_path / name).touch()
    assert [Path(name).name for name in names(tmp_path)] == ["a.flac", "b.OGG", "c.m4a", "d.mkv"]


def test_a_download_that_breaks_off_is_no_recording(folder: Path) -> None:
    recording = (folder / "speech.wav").read_bytes()

    class Half(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(recording)))
            self.end_headers()
            self.wfile.write(recording[: len(recording) // 2])

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Half) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        result = transcribe(f"http://127.0.0.1:{server.server_port}/talk.wav")
        spaced = transcribe(f"http://127.0.0.1:{server.server_port}/my talk.wav")
        server.shutdown()
        thread.join()
    assert (result.returncode, result.stdout) == (1, b"")
    assert b"lost in the middle" in result.stderr
    assert (spaced.returncode, spaced.stderr.count(b"Error: ")) == (1, 1)


def test_a_pipe_is_read_to_its_end(folder: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    thread = threading.Thread(target=lambda: pipe.write_bytes((folder / "speech.wav").read_bytes()))
    thread.start()
    assert is_right(transcribe(pipe).stdout.decode())
    thread.join()


def test_waiting_for_standard_input_can_be_broken_off(folder: Path) -> None:
    arguments = ["-", str(folder / "speech.wav"), "--output", str(folder / "out")]
    command = [sys.executable, "-m", "auricle", "transcribe", *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as process:
        text = folder / "out" / "speech.txt"
        deadline_s = time.monotonic() + 60
        while not text.exists():  # written before the one that comes first in the order
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    assert is_right(text.read_text())


def test_one_that_fails_does_not_stop_the_others(folder: Path, tmp_path: Path) -> None:
    result = transcribe(folder / "notes.txt", folder / "speech.wav", "nowhere.wav", "--output", tmp_path)
    assert result.returncode == 1
    assert is_right((tmp_path / "speech.txt").read_text())
    errors = [line for line in result.stderr.decode().splitlines() if line.startswith("Error: ")]
    assert ["notes.txt" in errors[0], "nowhere.wav" in errors[1], len(errors)] == [True, True, 2]


@pytest.mark.parametrize(
    ("flags", "told"),
    [(["--format", "pdf"], b"pdf"), (["--realtime", "http://127.0.0.1:9/v1", "--format", "srt"], b"--format")],
)
def test_what_does_not_go_is_told(folder: Path, flags: list[str], told: bytes) -> None:
    result = transcribe(folder / "speech.wav", *flags)
    assert result.returncode == 1
    assert told in result.stderr
