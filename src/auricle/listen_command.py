"""`auricle listen`: live captions of a microphone in the terminal."""

from __future__ import annotations

import asyncio
import secrets
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from auricle.audio.formats import SAMPLE_RATE, AudioFormat, Samples
from auricle.client import RealtimeClient
from auricle.local_server import started_server
from auricle.microphone import (
    LiveAudio,
    Microphone,
    find_microphone,
    microphone_audio,
    microphones,
    standard_input_audio,
)

STDIN = "-"
_FORMAT = AudioFormat("audio/pcm", SAMPLE_RATE)
_LONGEST_S = "86400"
"""How long a session of a server of our own may last: a day."""
_MUTED_S = 3.0
"""After so long without a single sample but 0, something must be wrong."""
_LEVELS = " ▁▂▃▄▅▆▇█"
_QUIET_DB, _LOUD_DB = -60.0, -10.0
"""Of the meter's ends, relative to full scale."""


def print_microphones(out: Console) -> None:
    """A table of the microphones. Raises MicrophoneError: they can't be asked for."""
    found = microphones()
    if not found:
        out.print("There is no microphone here.")
        return
    table = Table("number", "microphone", "", box=None)
    for one in found:
        table.add_row(str(one.number), Text(one.name), "default" if one.is_default else "")
    out.print(table)


def listen_to(
    source: str | None, url: str | None, api_key: str | None, audio_input: dict[str, Any], out: Console, err: Console
) -> None:
    """Show what is said until Ctrl-C, or the end of standard input. `audio_input` is that of the session object.

    Without a `url` a server is started for it. Raises AuricleError.
    """
    microphone = None if source == STDIN else find_microphone(source)
    audio_input = {"format": {"type": _FORMAT.type, "rate": SAMPLE_RATE}} | audio_input
    with nullcontext((url, api_key)) if url is not None else _own_server(err) as (base_url, key):
        asyncio.run(_listen(microphone, base_url, key, audio_input, Captions(microphone, out, err)))


@contextmanager
def _own_server(err: Console) -> Iterator[tuple[str, str]]:
    """Yields its base URL and its key: where the settings of this machine's server want one, so does this server."""
    key = secrets.token_urlsafe()
    flags = ("--max-session-s", _LONGEST_S, f"--api-keys={key}")
    with err.status("Loading the model…") as status, started_server(*flags) as (base_url, _):
        status.stop()
        yield base_url, key


async def _listen(
    microphone: Microphone | None, base_url: str, api_key: str | None, audio_input: dict[str, Any], captions: Captions
) -> None:
    async with RealtimeClient.connect(base_url, api_key) as client:
        await client.update(audio_input)
        with microphone_audio(microphone) if microphone else standard_input_audio() as audio, captions:
            _end_on_signal(audio)
            async for event in client.stream(_heard(audio, captions), _FORMAT):
                captions.receive(event)
            if audio.problem:  # what was heard before it has its text now
                raise audio.problem


def _end_on_signal(audio: LiveAudio) -> None:
    """Ctrl-C is the end of the audio, whose last words are still wanted; a second one is the end of the program."""
    loop = asyncio.get_running_loop()

    def end() -> None:
        loop.remove_signal_handler(signal.SIGINT)
        audio.end()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:  # as with nohup
            loop.add_signal_handler(number, end)


async def _heard(audio: LiveAudio, captions: Captions) -> AsyncIterator[Samples]:
    async for samples in audio.blocks():
        captions.hear(samples)
        yield samples


class Captions:
    """Finished turns as lines, and on a terminal below them the turn that goes on, and how loud it is.

    A context: the terminal is as it was, afterwards. Used by one task.
    """

    def __init__(self, microphone: Microphone | None, out: Console, err: Console) -> None:
        self._name = microphone.name if microphone else "standard input"
        self._out = out
        self._err = err
        # Drawn by us, after whatever changes it, so that nothing draws from another thread.
        self._live = Live(console=out, auto_refresh=False, transient=True) if out.is_terminal else None
        self._starts_ms: dict[str, int] = {}
        self._texts: dict[str, str] = {}
        """Of the turns that go on, by item."""
        self._heard_samples = 0
        self._silent_samples = 0
        self._level_db = _QUIET_DB

    def __enter__(self) -> Captions:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        for item, text in list(self._texts.items()):  # what was shown of turns whose end nobody will tell
            self._finish(item, text.strip())
        if self._live:
            self._live.update(Text(), refresh=True)
            self._live.stop()

    def hear(self, samples: Samples) -> None:
        """Take in what goes to the server."""
        self._heard_samples += samples.size
        peak = float(np.abs(samples).max(initial=0))
        self._silent_samples = 0 if peak else self._silent_samples + samples.size
        self._level_db = 20 * np.log10(max(peak, 1e-6))
        self._draw()

    def receive(self, event: dict[str, Any]) -> None:
        """Take in what the server says."""
        item = event.get("item_id", "")
        match event["type"].split(".")[-1]:
            case "speech_started":
                self._starts_ms[item] = event["audio_start_ms"]
                self._texts[item] = ""
            case "delta":
                self._texts[item] = self._texts.get(item, "") + event["delta"]
            case "completed":
                self._finish(item, event["transcript"])
            case "failed":
                self._finish(item, f"[{event['error']['message']}]")
            case "updated" if self._live is None:
                self._err.print(f"Listening to {self._name}. Ctrl-C ends it.", markup=False, highlight=False)
            case _:
                return
        self._draw()

    def _finish(self, item: str, text: str) -> None:
        self._texts.pop(item, None)
        start_ms = self._starts_ms.pop(item, None)
        if not text:
            return
        if self._live and start_ms is not None:
            text = f"{_clock(start_ms / 1000)}  {text}"
        self._out.print(text, markup=False, highlight=False, soft_wrap=True)
        self._out.file.flush()

    def _draw(self) -> None:
        if self._live:
            width, height = self._out.size
            lines = [line for text in self.lines() for line in text.wrap(self._out, width)]
            # Of what is too long, rich would show the beginning.
            self._live.update(Group(*lines[-height:]), refresh=True)

    def lines(self) -> Iterator[Text]:
        """What is below the finished turns: the turns that go on, and the state of the microphone."""
        for item, text in self._texts.items():
            start = _clock(self._starts_ms.get(item, 0) / 1000)
            yield Text.assemble((f"{start}  ", "cyan"), text, ("▌", "cyan"))
        if self._silent_samples > _MUTED_S * SAMPLE_RATE:
            yield Text("There is no sound at all. Is the microphone muted?", "yellow")
        share = (self._level_db - _QUIET_DB) / (_LOUD_DB - _QUIET_DB)
        level = _LEVELS[round(min(max(share, 0), 1) * (len(_LEVELS) - 1))]
        status = f" {_clock(self._heard_samples / SAMPLE_RATE)}  {self._name} · Ctrl-C ends it"
        yield Text.assemble(("●", "red"), f" {level}", (status, "dim"), no_wrap=True, overflow="ellipsis")


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes}:{seconds:02}"
