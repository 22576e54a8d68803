"""Audio files of any container and codec that ffmpeg knows, read as samples (PyAV).

Knows no HTTP and no limits of the server. PyAV is imported on first use, as it takes long to load.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from auricle.audio.formats import SAMPLE_RATE, Samples
from auricle.audio.resample import Resampler
from auricle.errors import ClientError

if TYPE_CHECKING:
    from av import AudioFrame, AudioStream
    from av.container import InputContainer

_MIN_RATE_HZ, _MAX_RATE_HZ = 4_000, 768_000
"""Rates of real recordings. A header that claims 1 Hz would make each sample of a small file a whole second."""


def read_audio(source: str | Path | BinaryIO) -> Samples:
    """Give a whole file as float32 mono at 16 kHz, shape (n,), n > 0. Channels are averaged.

    `source` is a path, never an address, or an open binary file, which is read from its start and stays open.

    Raises ClientError where it can't be opened, is not audio, holds no audio, or is broken, that is, more of its
    packets can't be decoded than can.
    """
    return np.concatenate(list(iter_audio(source)))


def iter_audio(source: str | Path | BinaryIO, block_s: float = 30.0) -> Iterator[Samples]:
    """Give a file in blocks of `block_s` seconds, the last one shorter: memory doesn't grow with the file's length.

    Otherwise as `read_audio`. Nothing is opened before the first block is asked for. That a file is broken may show,
    and raise ClientError, only after some blocks. There is at least one block, and none is empty.
    """
    block_samples = max(1, round(block_s * SAMPLE_RATE))
    parts: list[Samples] = []
    part_samples = 0
    is_empty = True
    with _open_audio(source) as (container, stream):
        for part in _resampled(_decoded(container, stream, source), source):
            parts.append(part)
            part_samples += part.size
            if part_samples < block_samples:
                continue
            joined = np.concatenate(parts)
            whole_samples = part_samples - part_samples % block_samples
            yield from np.split(joined[:whole_samples], whole_samples // block_samples)
            parts, part_samples = [joined[whole_samples:]], part_samples - whole_samples
            is_empty = False
    if part_samples:
        yield np.concatenate(parts)
    elif is_empty:
        raise _unreadable(source, "it holds no audio")


def audio_duration_s(source: str | Path | BinaryIO) -> float | None:
    """Give a file's length in seconds as its header tells it, or None where it doesn't, as in browsers' recordings.

    For progress bars: a header may be wrong. An open file is left at the place where it was.

    Raises ClientError where the file can't be opened, is not audio or has no audio stream.
    """
    import av

    position_bytes = source.tell() if not isinstance(source, str | Path) and source.seekable() else None
    try:
        with _open_audio(source) as (container, stream):
            if stream.duration is not None and stream.time_base is not None:
                return float(stream.duration * stream.time_base)
            return None if container.duration is None else container.duration / av.time_base
    finally:
        if position_bytes is not None and not isinstance(source, str | Path):
            source.seek(position_bytes)


@contextmanager
def _open_audio(source: str | Path | BinaryIO) -> Iterator[tuple[InputContainer, AudioStream]]:
    """Open a source and its best audio stream. Raises ClientError where there is none."""
    if isinstance(source, str | Path):
        # Opened here, since ffmpeg would also take addresses of many protocols for a path.
        try:
            file = _open_path(source)
        except (OSError, ValueError) as error:  # ValueError: a null byte in the path
            raise _unreadable(source, getattr(error, "strerror", None) or str(error)) from error
        with file, _open_audio(file) as opened:
            yield opened
        return
    with _open_container(source) as container:
        stream = cast("AudioStream | None", container.streams.best("audio"))
        if stream is None:
            raise _unreadable(source, "it has no audio stream")
        if stream.codec_context is None:
            raise _unreadable(source, "its audio codec is not supported")
        yield container, stream


def _open_path(path: str | Path) -> BinaryIO:
    return Path(path).open("rb")


def _open_container(source: BinaryIO) -> InputContainer:
    import av

    if source.seekable():
        is_empty = source.seek(0, 2) == 0
        source.seek(0)
        if is_empty:
            raise _unreadable(source, "the file is empty")
    try:
        # Playlists and lists of files are containers, too: with no protocol allowed, an upload can't make the server
        # open what it names. Broken tags don't matter. The mode is given, as PyAV would take a temporary file's own
        # ("w+b") for a wish to write.
        return av.open(source, mode="r", options={"protocol_whitelist": "none"}, metadata_errors="replace")
    except av.error.FFmpegError as error:
        raise _unreadable(source, f"it is not audio of a known format ({error.strerror})") from error


def _decoded(container: InputContainer, stream: AudioStream, source: str | Path | BinaryIO) -> Iterator[AudioFrame]:
    """Give the frames of a stream, without its broken packets.

    Raises ClientError where more packets are broken than good, after the frames of the good ones.
    """
    import av

    good_packets = broken_packets = 0
    try:
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                broken_packets += 1
                continue
            good_packets += bool(frames)
            for frame in frames:
                if isinstance(frame, av.AudioFrame) and frame.samples:
                    yield frame
    except av.error.FFmpegError as error:
        raise _unreadable(source, f"it is broken ({error.strerror})") from error
    if broken_packets > good_packets:
        raise _unreadable(source, "it is broken: most of it can't be decoded")


def _resampled(frames: Iterator[AudioFrame], source: str | Path | BinaryIO) -> Iterator[Samples]:
    """Give frames as mono at 16 kHz. The rate may change on the way, as it does in chained Ogg files."""
    resampler: Resampler | None = None
    for frame in frames:
        if resampler is None or resampler.in_rate_hz != frame.sample_rate:
            if not _MIN_RATE_HZ <= frame.sample_rate <= _MAX_RATE_HZ:
                raise _unreadable(source, f"a sample rate of {frame.sample_rate} Hz is not supported")
            if resampler is not None:
                yield resampler.flush()
            resampler = Resampler(frame.sample_rate)
        try:
            mono = _mono(frame)
        except ValueError as error:
            raise _unreadable(source, f"samples of format {frame.format.name} are not supported") from error
        yield resampler.resample(mono)
    if resampler is not None:
        yield resampler.flush()


def _mono(frame: AudioFrame) -> Samples:
    """Average a frame's channels, shape (samples,), in [-1, 1].

    Raises ValueError where PyAV can't give the frame's sample format.
    """
    values: NDArray[Any] = frame.to_ndarray()
    if not frame.format.is_planar:  # one row, with the channels' samples in turn
        values = values.reshape(-1, frame.layout.nb_channels).T
    mean = values.mean(axis=0, dtype=np.float64)
    if values.dtype == np.uint8:
        mean = (mean - 128) / 128
    elif values.dtype.kind == "i":
        mean = mean / 2.0 ** (8 * values.dtype.itemsize - 1)
    # Files of floats may hold anything; one NaN would spoil all that the resampler and the models give from there on.
    samples: Samples = np.clip(np.nan_to_num(mean), -1, 1).astype(np.float32)
    return samples


def _unreadable(source: str | Path | BinaryIO, reason: str) -> ClientError:
    """Build the error for a source. Names the file, but never the server's folders."""
    name = source if isinstance(source, str | Path) else getattr(source, "name", None)
    label = f"'{Path(name).name}'" if isinstance(name, str | Path) else "the audio file"
    return ClientError("invalid_value", f"Can't read {label}: {reason}.", "file")
