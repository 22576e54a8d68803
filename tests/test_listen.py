"""`auricle listen`: through a real sound system, whose microphone is a pipe, and through standard input."""

from __future__ import annotations

import asyncio
import ctypes.util
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from clips import silence
from conftest import RunningServer
from rich.console import Console
from test_cli import auricle, error_line, text_of, write_wav
from wire import BEST_OF_TIMES, best_of_times, spoken
from words import said, word_error_rate

from auricle.audio.formats import SAMPLE_RATE, Samples
from auricle.listen_command import Captions
from auricle.microphone import LiveAudio, Microphone

BLOCK_S = 0.1

needs_sound_system = pytest.mark.skipif(
    not ("CI" in os.environ or (sys.platform == "linux" and ctypes.util.find_library("portaudio"))),
    reason="needs Linux with libportaudio2",
)


@dataclass
class PipeMicrophone:
    """What is said into a microphone of the sound system. Silence, until something else is."""

    pipe: int
    config: Path
    _to_say: bytes = b""
    _is_on: bool = True

    def say(self, samples: Samples) -> None:
        self._to_say = (samples * 32767).astype("<i2").tobytes()

    @property
    def is_quiet(self) -> bool:
        return not self._to_say

    def run(self) -> None:
        """In real time, as a microphone hears."""
        size = int(BLOCK_S * SAMPLE_RATE) * 2
        quiet = (silence(BLOCK_S) * 32767).astype("<i2").tobytes()
        while self._is_on:
            block, self._to_say = self._to_say[:size] or quiet, self._to_say[size:]
            if select.select([], [self.pipe], [], 0)[1]:  # else nobody listens
                os.write(self.pipe, block.ljust(size, b"\0"))
            time.sleep(BLOCK_S)

    def stop(self) -> None:
        self._is_on = False


@pytest.fixture
def microphone(tmp_path: Path) -> Iterator[PipeMicrophone]:
    """The only one of a sound system of its own (ALSA's `file` plugin, which reads what a card would hear)."""
    fifo = tmp_path / "microphone"
    os.mkfifo(fifo)
    config = tmp_path / "asound.conf"
    config.write_text(
        f"""
        pcm.pipe {{ type file  slave.pcm {{ type null }}  file "/dev/null"  infile "{fifo}"  format "raw" }}
        pcm.!default {{
            type plug
            slave {{ pcm "pipe"  format S16_LE  rate {SAMPLE_RATE}  channels 1 }}
        }}
        """
    )
    pipe = os.open(fifo, os.O_RDWR)  # so that neither end waits for the other to open it
    said = PipeMicrophone(pipe, config)
    thread = threading.Thread(target=said.run)
    thread.start()
    yield said
    said.stop()
    thread.join()
    os.close(pipe)


@dataclass
class Listening:
    """A command that runs, and what it has printed so far."""

    process: subprocess.Popen[bytes]
    output: int
    is_terminal: bool
    shown: str = ""

    def until(self, condition: Callable[[str], bool], timeout_s: float = 60) -> str:
        """Read until the condition holds of all that was shown."""
        deadline_s = time.monotonic() + timeout_s
        while not condition(self.shown):
            assert time.monotonic() < deadline_s, self.shown
            if select.select([self.output], [], [], 0.2)[0]:
                self.shown += self._read()
        return self.shown

    def finish(self) -> str:
        """Press Ctrl-C, and read to the end."""
        if self.is_terminal:
            os.write(self.output, b"\x03")
        else:
            self.process.send_signal(signal.SIGINT)
        while part := self._read():
            self.shown += part
        assert self.process.wait(30) == 0
        return self.shown

    def _read(self) -> str:
        try:
            return os.read(self.output, 65536).decode(errors="replace")
        except OSError:  # so a terminal ends
            return ""


@pytest.fixture
def listen(microphone: PipeMicrophone) -> Iterator[Callable[..., Listening]]:
    """Start the command; its output is a pipe, or a terminal of 80 columns."""
    started: list[Listening] = []

    def start(*arguments: str, terminal: bool = False) -> Listening:
        ours, theirs = pty.openpty() if terminal else os.pipe()
        environment = os.environ | {
            "ALSA_CONFIG_PATH": str(microphone.config),
            "COLUMNS": "80",
            "TERM": "xterm",
            "PYTHONIOENCODING": "utf-8",
        }
        command = [sys.executable, "-m", "auricle", "listen", *arguments]
        process = subprocess.Popen(
            command,
            stdout=theirs,
            stderr=theirs,
            env=environment,
            pass_fds=[theirs],
            # A terminal of its own, whose Ctrl-C reaches all that runs in it.
            preexec_fn=(lambda: os.login_tty(os.dup(theirs))) if terminal else None,
        )
        os.close(theirs)
        started.append(Listening(process, ours, terminal))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()
        os.close(one.output)


def finished_turns(shown: str) -> list[str]:
    """The lines of a terminal that stay: those of turns that go on have a cursor."""
    return re.findall(r"\d:\d\d  ([^▌\r\n]*)\r\n", shown)


@needs_sound_system
def test_speech_into_the_microphone_becomes_lines(
    server: RunningServer, microphone: PipeMicrophone, listen: Callable[..., Listening]
):
    listening = listen("--url", server.base_url)
    listening.until(lambda shown: "Listening to default. Ctrl-C ends it.\n" in shown)
    microphone.say(spoken(best_of_times()))
    listening.until(lambda shown: shown.count("\n") > 1)
    _, *lines = listening.finish().splitlines()
    assert len(lines) == 1
    assert word_error_rate(BEST_OF_TIMES, lines[0]) < 0.2


@needs_sound_system
def test_a_terminal_shows_words_before_the_turn_ends(
    server: RunningServer, microphone: PipeMicrophone, listen: Callable[..., Listening]
):
    listening = listen("--url", server.base_url, terminal=True)
    listening.until(lambda shown: "●" in shown and "Ctrl-C" in shown)
    # Nobody has stopped speaking when the first words are there: the turn needs a second of silence.
    microphone.say(np.concatenate([best_of_times()] * 3))
    listening.until(lambda shown: "best of times" in shown and "▌" in shown)
    assert not microphone.is_quiet
    assert "best of times" in " ".join(finished_turns(listening.finish()))


@needs_sound_system
def test_ctrl_c_amid_a_turn_loses_none_of_what_was_said(microphone: PipeMicrophone, listen: Callable[..., Listening]):
    """With a server of its own, which Ctrl-C in a terminal must not end too early."""
    listening = listen("--turn-detection", "server_vad:9000", terminal=True)
    listening.until(lambda shown: "●" in shown)
    microphone.say(np.concatenate([best_of_times(), silence(1.0)]))
    listening.until(lambda _: microphone.is_quiet)
    assert not finished_turns(listening.shown)
    assert said(" ".join(finished_turns(listening.finish())))


@needs_sound_system
def test_microphones_are_listed_and_found_by_number_and_name(microphone: PipeMicrophone):
    variables = {"ALSA_CONFIG_PATH": str(microphone.config)}
    result = auricle("listen", "--list", **variables)
    assert re.search(r"default +default", result.stdout), result.stderr
    number = re.search(r"(\d+) +pipe", result.stdout)
    assert number
    line = error_line(auricle("listen", "loudspeaker", **variables))
    assert re.search("no microphone 'loudspeaker'.*--list", line)
    line = error_line(auricle("listen", "--url", "http://127.0.0.1:9/v1", number[1], **variables))
    assert "No connection" in line


@needs_sound_system
def test_a_machine_without_a_microphone_says_so(tmp_path: Path):
    config = tmp_path / "asound.conf"
    nowhere = tmp_path / "nowhere" / "microphone"
    config.write_text(
        f'pcm.!default {{ type file  slave.pcm {{ type null }}  file "/dev/null"  infile "{nowhere}"  format "raw" }}'
    )
    assert "no microphone" in error_line(auricle("listen", ALSA_CONFIG_PATH=str(config)))
    assert "no microphone" in text_of(auricle("listen", "--list", ALSA_CONFIG_PATH=str(config)))


def test_standard_input_is_heard_to_its_end(server: RunningServer, tmp_path: Path):
    """As `ffmpeg … | auricle listen -` does; its end is the end of the last turn."""
    recording = write_wav(tmp_path / "speech.wav", best_of_times())
    command = [sys.executable, "-m", "auricle", "listen", "-", "--url", server.base_url]
    with recording.open("rb") as file:
        result = subprocess.run(command, stdin=file, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert word_error_rate(BEST_OF_TIMES, result.stdout) < 0.2
    assert "standard input" in result.stderr


@pytest.mark.parametrize(
    ("content", "told"), [(b"", "the file is empty"), (b"root:x:0:0\n" * 1000, "not audio of a known format")]
)
def test_a_stream_that_is_no_audio_is_told_as_such(server: RunningServer, tmp_path: Path, content: bytes, told: str):
    """And not that the connection was closed, which is only what became of it."""
    (tmp_path / "stream").write_bytes(content)
    command = [sys.executable, "-m", "auricle", "listen", "-", "--url", server.base_url]
    with (tmp_path / "stream").open("rb") as file:
        result = subprocess.run(command, stdin=file, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert told in result.stderr.splitlines()[-1]


def test_ctrl_c_ends_a_stream_that_goes_on(server: RunningServer, tmp_path: Path):
    """Whoever reads it ends too: else libraries complain at the end of the program."""
    command = [sys.executable, "-m", "auricle", "listen", "-", "--url", server.base_url]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(write_wav(tmp_path / "speech.wav", best_of_times()).read_bytes())
        process.stdin.flush()
        assert b"Listening" in process.stderr.readline()
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert process.stderr.read() == b""


def test_a_server_of_its_own_takes_it_in_where_the_settings_want_keys(tmp_path: Path):
    recording = write_wav(tmp_path / "speech.wav", best_of_times())
    command = [sys.executable, "-m", "auricle", "listen", "-"]
    environment = os.environ | {"AURICLE_API_KEYS": "sk-somebody-else"}
    with recording.open("rb") as file:
        result = subprocess.run(command, stdin=file, capture_output=True, text=True, timeout=60, env=environment)
    assert result.returncode == 0, result.stderr
    assert word_error_rate(BEST_OF_TIMES, result.stdout) < 0.2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_server_of_its_own_ends_with_it(number: signal.Signals):
    """Also with the terminal, and before it listens."""
    program = (
        "from auricle.local_server import started_server; import time\n"
        "with started_server() as (_, pid): print(pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        server = int(process.stdout.readline())
        process.send_signal(number)
        assert process.wait(30) == 128 + number
    with pytest.raises(ProcessLookupError):
        os.kill(server, 0)


def test_a_stream_waits_to_be_taken_and_a_microphone_cannot(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("auricle.microphone._MAX_WAITING", 3)
    blocks = [np.full(1, number, np.float32) for number in range(10)]

    async def heard(*, can_wait: bool) -> tuple[list[float], str]:
        audio = LiveAudio()

        def bring() -> None:
            for block in blocks:
                audio.put(block, can_wait=can_wait)
            audio.end()

        thread = threading.Thread(target=bring)
        thread.start()
        await asyncio.sleep(0.1)  # so that there is more than can wait
        taken = [float(block[0]) async for block in audio.blocks()]
        thread.join()
        return taken, str(audio.problem)

    assert asyncio.run(heard(can_wait=True)) == (list(range(10)), "None")
    taken, problem = asyncio.run(heard(can_wait=False))
    assert taken == [0, 1, 2]
    assert "more slowly than it comes" in problem


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--turn-detection", "none"], "--turn-detection"),
        (["--turn-detection", "soon"], "--turn-detection: 'soon'"),
        (["--delay", "never"], "delay"),
        (["--model", "nope", "--url", "{url}"], "nope"),
    ],
)
def test_wrong_options_are_one_line(server: RunningServer, arguments: list[str], told: str):
    filled = [argument.format(url=server.base_url) for argument in arguments]
    assert told in error_line(auricle("listen", "-", *filled))


# What is shown


def captions_on_a_terminal(height: int = 20) -> tuple[Captions, Console]:
    out = Console(width=60, height=height, force_terminal=True, record=True, file=StringIO())
    return Captions(Microphone(0, "Desk", 48_000, is_default=True), out, out), out


def test_silence_without_a_single_sound_is_pointed_out():
    captions, _ = captions_on_a_terminal()
    captions.hear(np.zeros(2 * SAMPLE_RATE, np.float32))
    assert "muted" not in str(list(captions.lines()))
    captions.hear(np.zeros(2 * SAMPLE_RATE, np.float32))
    assert "muted" in str(list(captions.lines()))
    captions.hear(np.full(100, 0.1, np.float32))
    assert "muted" not in str(list(captions.lines()))


def test_a_turn_without_words_leaves_no_line():
    captions, out = captions_on_a_terminal()
    captions.receive({"type": "input_audio_buffer.speech_started", "item_id": "item_1", "audio_start_ms": 61_000})
    assert "1:01" in str(list(captions.lines()))
    captions.receive(
        {"type": "conversation.item.input_audio_transcription.completed", "item_id": "item_1", "transcript": ""}
    )
    assert "1:01" not in str(list(captions.lines()))
    assert "1:01" not in out.export_text()


def test_of_a_turn_that_is_too_long_the_newest_words_are_shown():
    captions, out = captions_on_a_terminal(height=5)
    assert isinstance(out.file, StringIO)
    with captions:
        captions.receive({"type": "input_audio_buffer.speech_started", "item_id": "item_1", "audio_start_ms": 0})
        for number in range(100):
            out.file.truncate(out.file.seek(0))
            captions.receive({"type": "x.delta", "item_id": "item_1", "delta": f" word{number}"})
        shown = out.file.getvalue()
    assert "word99" in shown
    assert "●" in shown
    assert "word0 " not in shown


def test_what_was_shown_of_a_turn_stays_when_its_end_never_comes():
    captions, out = captions_on_a_terminal()
    with captions:
        captions.receive({"type": "input_audio_buffer.speech_started", "item_id": "item_1", "audio_start_ms": 0})
        captions.receive({"type": "x.delta", "item_id": "item_1", "delta": " Half a sen"})
    assert "0:00  Half a sen\n" in out.export_text()
