"""Audio as it is heard: a microphone of this machine, by PortAudio (sounddevice), or a stream on standard input."""

from __future__ import annotations

import asyncio
import io
import os
import select
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from auricle.audio.files import iter_audio
from auricle.audio.formats import Samples
from auricle.audio.resample import Resampler
from auricle.errors import AuricleError

BLOCK_S = 0.1
_MAX_WAITING = round(300 / BLOCK_S)
"""Blocks that may wait to be taken: five minutes."""
_END_S = 2.0
"""So long may a reader take to end."""


class MicrophoneError(AuricleError):
    """There is no such microphone, or it gives nothing any more."""


@dataclass(frozen=True, slots=True)
class Microphone:
    """An input of this machine."""

    number: int
    name: str
    rate_hz: int
    """At which it gives samples by itself."""
    is_default: bool


class LiveAudio:
    """Float32 mono at 16 kHz that another thread brings, for one task of the loop that made this."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._blocks: asyncio.Queue[Samples | None] = asyncio.Queue()
        self._room = threading.Semaphore(_MAX_WAITING)
        self._has_ended = False
        self.problem: AuricleError | None = None
        """What ended it, if it should not have ended."""

    def put(self, samples: Samples, *, can_wait: bool = False) -> None:
        """Add what was heard. From another thread. Where too much waits already, that `can_wait` too, or is the end."""
        if self._room.acquire(blocking=can_wait):
            self._call(self._blocks.put_nowait, samples)
        else:
            self.end(MicrophoneError("The server takes audio more slowly than it comes."))

    def end(self, problem: AuricleError | None = None) -> None:
        """There is no more, because of `problem` or as it should be. From any thread; the first time counts."""
        self._call(self._end, problem)

    def let_go(self) -> None:
        """Nobody takes any more, so nobody need wait to bring it."""
        self._room.release(_MAX_WAITING)

    async def blocks(self) -> AsyncIterator[Samples]:
        """What was heard, to its end; then `problem` tells whether that was one."""
        while (samples := await self._blocks.get()) is not None:
            self._room.release()
            yield samples

    def _call(self, function: Any, argument: object) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(function, argument)

    def _end(self, problem: AuricleError | None) -> None:
        if not self._has_ended:
            self._has_ended = True
            self.problem = problem
            self._blocks.put_nowait(None)


def microphones() -> list[Microphone]:
    """The inputs of this machine. Raises MicrophoneError: they can't be asked for."""
    sounddevice = _sounddevice()
    default = sounddevice.default.device[0]
    return [
        Microphone(number, device["name"], round(device["default_samplerate"]), number == default)
        for number, device in enumerate(sounddevice.query_devices())
        if device["max_input_channels"] > 0
    ]


def find_microphone(wanted: str | None) -> Microphone:
    """The one with this number, or with this in its name, in whatever case; None: the system's choice.

    Raises MicrophoneError: there is none, or more than one.
    """
    found = microphones()
    if wanted is None:
        chosen = [one for one in found if one.is_default] or found[:1]
    elif wanted.isdecimal():
        chosen = [one for one in found if one.number == int(wanted)]
    else:
        chosen = [one for one in found if wanted.casefold() in one.name.casefold()]
    match chosen:
        case [one]:
            return one
        case []:
            which = "microphone" if wanted is None else f"microphone '{wanted}'"
            raise MicrophoneError(f"There is no {which} here; `auricle listen --list` shows what there is.")
        case _:
            names = ", ".join(f"{one.number} ({one.name})" for one in chosen)
            raise MicrophoneError(f"'{wanted}' is the name of several microphones: {names}.")


@contextmanager
def microphone_audio(microphone: Microphone) -> Iterator[LiveAudio]:
    """What a microphone hears during the block. Raises MicrophoneError: it can't be opened."""
    sounddevice = _sounddevice()
    audio = LiveAudio()
    resampler = Resampler(microphone.rate_hz)

    def take(samples: np.ndarray[Any, Any], *_: object) -> None:
        audio.put(resampler.resample(samples[:, 0].copy()))

    try:
        stream = sounddevice.InputStream(
            samplerate=microphone.rate_hz,
            blocksize=round(BLOCK_S * microphone.rate_hz),
            device=microphone.number,
            channels=1,
            dtype="float32",
            callback=take,
            finished_callback=lambda: audio.end(MicrophoneError(f"{microphone.name} gives nothing any more.")),
        )
        with stream:
            yield audio
    except sounddevice.PortAudioError as error:
        raise MicrophoneError(f"{microphone.name} can't be opened: {error}") from None


@contextmanager
def standard_input_audio() -> Iterator[LiveAudio]:
    """A stream on standard input, of any container that ffmpeg reads, as it comes."""
    audio = LiveAudio()
    file = _StandardInput()

    def read() -> None:
        try:
            for block in iter_audio(file, BLOCK_S):
                audio.put(block, can_wait=True)  # a file comes faster than it is understood
        except AuricleError as error:
            audio.end(error)
        else:
            audio.end()

    thread = threading.Thread(target=read, name="standard-input", daemon=True)
    thread.start()
    try:
        yield audio
    finally:
        file.end()
        audio.let_go()
        thread.join(_END_S)


class _StandardInput(io.FileIO):
    """Standard input, whose reader can be told from another thread that it is over.

    Without the buffer of `sys.stdin`, which would wait to be full, and whose lock the program's end needs.
    """

    def __init__(self) -> None:
        super().__init__(0, "rb", closefd=False)
        self._is_over, self._over = os.pipe()

    def read(self, size: int | None = -1) -> bytes:
        """What there is, once there is something."""
        ready, _, _ = select.select([self.fileno(), self._is_over], [], [])
        return b"" if self._is_over in ready else super().read(-1 if size is None else size) or b""

    def end(self) -> None:
        """From now on nothing is read. The pipe lives as long as the program."""
        os.close(self._over)


def _sounddevice() -> Any:
    try:
        import sounddevice
    except ImportError:
        raise MicrophoneError("A microphone needs sounddevice: install auricle[mic].") from None
    except OSError:
        raise MicrophoneError(
            "sounddevice finds no PortAudio library. On Debian and Ubuntu: apt install libportaudio2."
        ) from None
    return sounddevice
