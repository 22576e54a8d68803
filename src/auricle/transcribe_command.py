"""`auricle transcribe`: which recordings there are, where their texts go, and how many are in work at a time."""

from __future__ import annotations

import asyncio
import glob
import http.client
import itertools
import json
import shutil
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from auricle.audio.files import audio_duration_s
from auricle.errors import AuricleError, ClientError
from auricle.recordings import Recording, RecordingTranscriber
from auricle.transcribe import Segment
from auricle.transcript_formats import BY_DEFAULT, Granularity, plain, srt, verbose_json, vtt

R = TypeVar("R")

FORMATS = ("txt", "srt", "vtt", "json")

STDIN = "-"
_URL_SCHEMES = ("http://", "https://")
_DOWNLOAD_TIMEOUT_S = 60
_MEDIA_SUFFIXES = frozenset(
    f".{name}"
    for names in (
        "aac ac3 aif aiff amr au caf flac m4a m4b mka mp2 mp3 oga ogg opus wav wma",
        "3gp avi flv m4v mkv mov mp4 mpeg mpg ogv ts webm wmv",
    )
    for name in names.split()
)
"""What files of audio or video end in. The system's own table of types lacks many of them, or is not there."""


@dataclass(frozen=True, slots=True)
class Source:
    """A recording that was asked for."""

    name: str
    """What it is called: its path, its address, or `-`."""
    place: Path
    """Where its text belongs below the folder of texts, without a suffix."""

    @property
    def is_file(self) -> bool:
        """Whether it is a path."""
        return self.name != STDIN and not self.name.startswith(_URL_SCHEMES)

    def open(self) -> BinaryIO:
        """The recording as a file that can be read from any place. Raises ClientError: it can't be had whole."""
        try:
            if self.name == STDIN:
                # Without the buffer of `sys.stdin`, whose lock the program's end could not get.
                return _copy(open(0, "rb", buffering=0, closefd=False))
            if self.is_file:
                file = Path(self.name).open("rb")  # noqa: SIM115
                return file if file.seekable() else _copy(file)
            with urllib.request.urlopen(self.name, timeout=_DOWNLOAD_TIMEOUT_S) as answer:
                copy = _copy(answer)
                if answer.length:  # what is still to come
                    raise OSError("the connection was lost in the middle")
                return copy
        # ValueError: a null byte in a path, an address that is none
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ClientError("invalid_value", f"Can't read '{self.name}': {reason}.", "file") from None


def _copy(file: BinaryIO | FileIO) -> BinaryIO:
    copy = tempfile.TemporaryFile()  # noqa: SIM115
    shutil.copyfileobj(file, copy)
    copy.seek(0)
    return copy


def sources_of(arguments: Iterable[str]) -> list[Source]:
    """The recordings that paths, patterns (`*`, `**`), folders, addresses and `-` stand for, each once.

    Of a folder those files are taken, at any depth, whose names are those of audio or video. Raises ValueError: a
    folder or pattern has none.
    """
    found: dict[str, Source] = {}
    for argument in arguments:
        for source in _sources(argument):
            found.setdefault(source.name, source)
    return _with_places_of_their_own(list(found.values()))


def _sources(argument: str) -> Iterator[Source]:
    path = Path(argument)
    if argument == STDIN:
        yield Source(STDIN, Path("stdin"))
    elif argument.startswith(_URL_SCHEMES):
        name = argument.split("?")[0].rstrip("/").rpartition("/")[2]
        yield Source(argument, Path(name).with_suffix(""))
    elif path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file() and _is_media(file))
        if not files:
            raise ValueError(f"The folder '{argument}' has no audio or video files.")
        yield from (Source(str(file), file.relative_to(path).with_suffix("")) for file in files)
    elif glob.has_magic(argument) and not path.exists():
        matches = sorted(glob.glob(argument, recursive=True))
        if not matches:
            raise ValueError(f"No file matches '{argument}'.")
        yield from (source for match in matches if not Path(match).is_dir() for source in _sources(match))
    else:
        yield Source(argument, Path(path.name).with_suffix(""))


def _is_media(file: Path) -> bool:
    return file.suffix.lower() in _MEDIA_SUFFIXES


def _with_places_of_their_own(sources: Sequence[Source]) -> list[Source]:
    """The same; those whose texts would go to the same place are told apart by their suffixes, then by numbers."""
    counts = Counter(source.place for source in sources)
    taken = {place for place, count in counts.items() if count == 1}
    result = []
    for source in sources:
        if counts[source.place] == 1:
            result.append(source)
            continue
        full = source.place.with_name(Path(source.name).name)
        numbered = (full.with_name(f"{full.name}-{number}") for number in itertools.count(2))
        place = next(place for place in itertools.chain([full], numbered) if place not in taken)
        taken.add(place)
        result.append(Source(source.name, place))
    return result


@dataclass(frozen=True, slots=True)
class Texts:
    """Where texts go, and in which form."""

    format: str
    """One of `FORMATS`."""
    folder: Path | None
    """None: to standard output."""
    language: str | None
    """What was said to be spoken."""
    with_words: bool = False
    """Whether JSON has the words too."""

    def path(self, source: Source) -> Path | None:
        """The file of a recording's text."""
        return self.folder / f"{source.place}.{self.format}" if self.folder else None

    def written(self, segments: Sequence[Segment], seconds: float) -> str:
        """A recording's text, with its last line ended."""
        match self.format:
            case "txt":
                return plain(segments) + "\n"
            case "srt":
                return srt(segments)
            case "vtt":
                return vtt(segments)
            case _:
                granularities: tuple[Granularity, ...] = ("word", "segment") if self.with_words else BY_DEFAULT
                content = verbose_json(segments, seconds, self.language, granularities)
                return json.dumps(content, ensure_ascii=False, indent=None if self.folder is None else 2) + "\n"


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all, so that one that is there needs no second look."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


async def transcribe_all(
    transcriber: RecordingTranscriber,
    sources: Sequence[Source],
    recording: Recording,
    texts: Texts,
    jobs: int,
    out: Console,
    err: Console,
) -> list[str]:
    """Transcribe recordings, `jobs` at a time. Their texts are written as they come, or printed in their order.

    One that fails doesn't stop the others. Returns what went wrong.
    """
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.fields[speed]}"))
    # Texts go to standard output themselves, which need not be where the bars are drawn.
    with Progress(*columns, TimeElapsedColumn(), console=err, transient=True, redirect_stdout=False) as progress:
        gate = asyncio.Semaphore(jobs)

        async def text_of(source: Source) -> str:
            async with gate:
                with await _in_daemon_thread(source.open) as file:
                    segments, seconds = await _transcribe_file(transcriber, source.name, file, recording, progress)
            text = texts.written(segments, seconds)
            if path := texts.path(source):
                _write(path, text)
            return text

        work = [asyncio.create_task(text_of(source)) for source in sources]
        problems = []
        try:
            for source, task in zip(sources, work, strict=True):
                try:
                    text = await task
                except (AuricleError, OSError) as error:
                    message = str(error)
                    problems.append(message if Path(source.name).name in message else f"{source.name}: {message}")
                    continue
                if texts.folder is None:
                    with _hidden(progress):
                        if len(sources) > 1 and texts.format != "json":
                            out.print(f"{source.name}:", style="bold", markup=False, highlight=False, soft_wrap=True)
                        out.print(text, markup=False, highlight=False, soft_wrap=True, end="")
        finally:
            for task in work:
                task.cancel()
    return problems


async def _in_daemon_thread(function: Callable[[], R]) -> R:
    """What a function returns that may wait for ever, such as for standard input: the program's end doesn't."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[R] = loop.create_future()

    def settle(result: R | None, error: Exception | None) -> None:
        if future.done():  # nobody waits any more
            return
        if error is None:
            future.set_result(cast(R, result))
        else:
            future.set_exception(error)

    def run() -> None:
        result, problem = None, None
        try:
            result = function()
        except Exception as error:
            problem = error
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, result, problem)

    threading.Thread(target=run, daemon=True).start()
    return await future


async def _transcribe_file(
    transcriber: RecordingTranscriber, name: str, file: BinaryIO, recording: Recording, progress: Progress
) -> tuple[list[Segment], float]:
    bar = progress.add_task(name, total=await asyncio.to_thread(audio_duration_s, file), speed="")
    segments, seconds, start_s = list[Segment](), 0.0, time.monotonic()
    try:
        async with aclosing(transcriber.transcribe(file, recording)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Segment):
                    segments.append(piece)
                    continue
                seconds = piece.seconds
                speed = seconds / max(time.monotonic() - start_s, 0.1)
                progress.update(bar, completed=seconds, speed=f"{speed:.0f}× real time")
    finally:
        progress.remove_task(bar)
    return segments, seconds


@contextmanager
def _hidden(progress: Progress) -> Iterator[None]:
    """Nothing is drawn during the block, so that what it prints stands alone."""
    progress.stop()
    try:
        yield
    finally:
        progress.start()
