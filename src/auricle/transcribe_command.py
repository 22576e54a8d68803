"""`auricle transcribe`: which recordings there are, where their texts go, and how many are in work at a time."""

from __future__ import annotations

import asyncio
import glob
import json
import mimetypes
import shutil
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from auricle.audio.files import audio_duration_s
from auricle.errors import AuricleError, ClientError
from auricle.recordings import Recording, RecordingTranscriber
from auricle.transcribe import Segment
from auricle.transcript_formats import plain, srt, verbose_json, vtt

FORMATS = ("txt", "srt", "vtt", "json")

STDIN = "-"
_URL_SCHEMES = ("http://", "https://")
_DOWNLOAD_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class Source:
    """A recording that was asked for."""

    name: str
    """What it is called: its path, its address, or `-`."""
    place: Path
    """Where its text belongs below the folder of texts, without a suffix."""

    def open(self) -> BinaryIO:
        """The recording as a file that can be read from any place. Raises ClientError: it can't be had."""
        try:
            if self.name != STDIN and not self.name.startswith(_URL_SCHEMES):
                return Path(self.name).open("rb")
            copy = tempfile.TemporaryFile()  # noqa: SIM115
            if self.name == STDIN:
                shutil.copyfileobj(sys.stdin.buffer, copy)
            else:
                with urllib.request.urlopen(self.name, timeout=_DOWNLOAD_TIMEOUT_S) as answer:
                    shutil.copyfileobj(answer, copy)
        except (OSError, ValueError) as error:  # ValueError: a null byte in a path, an address that is none
            reason = getattr(error, "strerror", None) or str(error)
            raise ClientError("invalid_value", f"Can't read '{self.name}': {reason}.", "file") from None
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
    kind, _ = mimetypes.guess_type(file.name)
    return kind is not None and kind.startswith(("audio/", "video/"))


def _with_places_of_their_own(sources: Sequence[Source]) -> list[Source]:
    """The same; those whose texts would go to the same place are told apart by their suffixes, then by numbers."""
    counts = Counter(source.place for source in sources)
    taken = set[Path]()
    result = []
    for source in sources:
        place = source.place
        if counts[place] > 1:
            place = place.with_name(Path(source.name).name)
            for number in range(2, len(sources) + 2):
                if place not in taken:
                    break
                place = source.place.with_name(f"{Path(source.name).name}-{number}")
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
                content = verbose_json(segments, seconds, self.language)
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
    """Transcribe recordings, `jobs` at a time, and print or write their texts, in their order.

    One that fails doesn't stop the others. Returns what went wrong.
    """
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.fields[speed]}"))
    # Texts go to standard output themselves, which need not be where the bars are drawn.
    with Progress(*columns, TimeElapsedColumn(), console=err, transient=True, redirect_stdout=False) as progress:
        gate = asyncio.Semaphore(jobs)
        work = [asyncio.create_task(_transcribe(transcriber, source, recording, gate, progress)) for source in sources]
        problems = []
        try:
            for source, task in zip(sources, work, strict=True):
                try:
                    segments, seconds = await task
                    text = texts.written(segments, seconds)
                    if path := texts.path(source):
                        _write(path, text)
                        continue
                except AuricleError as error:
                    is_named = Path(source.name).name in error.message
                    problems.append(error.message if is_named else f"{source.name}: {error.message}")
                    continue
                with _hidden(progress):
                    if len(sources) > 1 and texts.format != "json":
                        out.print(f"{source.name}:", style="bold", markup=False, highlight=False, soft_wrap=True)
                    out.print(text, markup=False, highlight=False, soft_wrap=True, end="")
        finally:
            for task in work:
                task.cancel()
    return problems


async def _transcribe(
    transcriber: RecordingTranscriber, source: Source, recording: Recording, gate: asyncio.Semaphore, progress: Progress
) -> tuple[list[Segment], float]:
    """The segments of one recording, and its length in seconds. Raises AuricleError."""
    async with gate:
        file = await asyncio.to_thread(source.open)
        with file:
            return await _transcribe_file(transcriber, source.name, file, recording, progress)


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
