"""Files that the tests write themselves with PyAV, and broken ones."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import wave
from pathlib import Path

import av
import numpy as np
import pytest

from auricle.audio.files import audio_duration_s, iter_audio, read_audio
from auricle.audio.formats import SAMPLE_RATE, Samples
from auricle.errors import ClientError

TONE_HZ = 440.0


def tone(rate_hz: int, duration_s: float = 1.0, level: float = 0.5) -> Samples:
    """A sine as float32, shape (n,)."""
    times_s = np.arange(round(rate_hz * duration_s)) / rate_hz
    return (level * np.sin(2 * np.pi * TONE_HZ * times_s)).astype(np.float32)


def write(
    path: Path | io.BytesIO,
    container: str,
    codec: str,
    channels: list[Samples],
    rate_hz: int,
    sample_format: str = "fltp",
) -> None:
    """Write channels, each of shape (n,), to a file. PyAV turns them into the sample format that the codec wants."""
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(channels)]
    with av.open(path, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate_hz, layout=layout, format=sample_format)
        frame = av.AudioFrame.from_ndarray(np.stack(channels), format="fltp", layout=layout)
        frame.sample_rate, frame.pts = rate_hz, 0
        resampler = av.AudioResampler(
            format=stream.format, layout=layout, rate=rate_hz, frame_size=stream.codec_context.frame_size or 1024
        )
        for converted in [*resampler.resample(frame), *resampler.resample(None)]:
            output.mux(stream.encode(converted))
        output.mux(stream.encode(None))


def wav_bytes(samples: Samples, rate_hz: int) -> bytes:
    """A mono 16-bit WAV file, by Python's own writer."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, rate_hz, 0, "NONE", ""))
        writer.writeframes(np.rint(samples * 32767).astype("<i2").tobytes())
    return file.getvalue()


def sine_level(samples: Samples, frequency_hz: float = TONE_HZ) -> float:
    """Amplitude of one frequency in the middle of 16 kHz audio."""
    middle = samples[2000:-2000] * np.hanning(samples.size - 4000)
    times_s = np.arange(middle.size) / SAMPLE_RATE
    return float(4 * abs(np.mean(middle * np.exp(-2j * np.pi * frequency_hz * times_s))))


@pytest.mark.parametrize(
    ("container", "codec", "rate_hz", "sample_format", "slack_samples"),
    [
        ("wav", "pcm_u8", 8_000, "u8", 0),
        ("wav", "pcm_s16le", 8_000, "s16", 0),
        ("wav", "pcm_s16le", 16_000, "s16", 0),
        ("wav", "pcm_s24le", 48_000, "s32", 0),
        ("wav", "pcm_f32le", 44_100, "flt", 0),
        ("wav", "pcm_f64le", 96_000, "dbl", 0),
        ("wav", "pcm_mulaw", 8_000, "s16", 0),
        ("flac", "flac", 44_100, "s16", 0),
        ("flac", "flac", 48_000, "s32", 0),
        ("mp3", "libmp3lame", 44_100, "fltp", 600),  # the end may be filled up to a whole frame
        ("mp4", "aac", 44_100, "fltp", 600),
        ("webm", "libopus", 48_000, "flt", 400),
        ("ogg", "libopus", 48_000, "flt", 400),
    ],
)
@pytest.mark.parametrize("channel_count", [1, 2])
def test_containers_and_codecs(
    tmp_path: Path, container: str, codec: str, rate_hz: int, sample_format: str, slack_samples: int, channel_count: int
) -> None:
    path = tmp_path / f"tone.{container}"
    write(path, container, codec, [tone(rate_hz)] * channel_count, rate_hz, sample_format)

    samples = read_audio(path)

    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert abs(samples.size - SAMPLE_RATE) <= slack_samples
    assert sine_level(samples) == pytest.approx(0.5, abs=0.03)  # LAME takes 5 % off
    assert float(np.sqrt(np.mean(samples[2000:-2000] ** 2))) == pytest.approx(0.5 / 2**0.5, abs=0.02)
    if slack_samples == 0:  # not delayed by a single sample
        assert np.abs(samples - tone(SAMPLE_RATE))[500:-500].max() < 0.02
    duration_s = audio_duration_s(path)
    assert duration_s == pytest.approx(1.0, abs=0.1)


def test_channels_are_averaged(tmp_path: Path) -> None:
    loud, silent = tone(16_000), np.zeros(16_000, np.float32)
    write(tmp_path / "left.wav", "wav", "pcm_s16le", [loud, silent], 16_000, "s16")
    write(tmp_path / "opposed.flac", "flac", "flac", [loud, -loud], 16_000, "s16")
    write(tmp_path / "six.wav", "wav", "pcm_s16le", [silent] * 3 + [loud] + [silent] * 2, 16_000, "s16")

    assert np.allclose(read_audio(tmp_path / "left.wav"), loud / 2, atol=1e-4)
    assert np.abs(read_audio(tmp_path / "opposed.flac")).max() < 1e-4
    assert np.allclose(read_audio(tmp_path / "six.wav"), loud / 6, atol=1e-4)


def test_24_bits_are_kept(tmp_path: Path) -> None:
    quiet = tone(16_000, level=1e-5)  # a third of a step of 16 bits
    write(tmp_path / "quiet.wav", "wav", "pcm_s24le", [quiet], 16_000, "s32")
    assert np.abs(read_audio(tmp_path / "quiet.wav") - quiet).max() < 2**-23


def test_full_scale_is_exact() -> None:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, 16_000, 0, "NONE", ""))
        writer.writeframes(np.array([-32768, -1, 0, 1, 32767], "<i2").tobytes())
    assert read_audio(file).tolist() == [-1, -1 / 32768, 0, 1 / 32768, 32767 / 32768]


def test_floats_are_made_harmless(tmp_path: Path) -> None:
    samples = np.array([0.5, np.nan, np.inf, -np.inf, 3, -3], np.float32)
    write(tmp_path / "wild.wav", "wav", "pcm_f32le", [samples], 16_000, "flt")
    assert read_audio(tmp_path / "wild.wav").tolist() == [0.5, 0, 1, -1, 1, -1]


def test_sources(tmp_path: Path) -> None:
    data = wav_bytes(tone(16_000), 16_000)
    path = tmp_path / "tone.wav"
    path.write_bytes(data)
    expected = read_audio(path)
    assert np.array_equal(read_audio(str(path)), expected)

    with tempfile.SpooledTemporaryFile() as upload:  # what FastAPI hands over
        upload.write(data)
        assert np.array_equal(read_audio(upload), expected)  # type: ignore[arg-type]
        assert not upload.closed
        assert np.array_equal(read_audio(upload), expected)  # type: ignore[arg-type]

    reading_end, writing_end = os.pipe()
    os.write(writing_end, data[:20_000])
    os.close(writing_end)
    with os.fdopen(reading_end, "rb") as pipe:
        assert np.array_equal(read_audio(pipe), expected[: (20_000 - 44) // 2])


@pytest.mark.parametrize("block_s", [0.032, 0.3, 1.0, 7.0])
def test_blocks_join_to_the_whole(block_s: float) -> None:
    file = io.BytesIO(wav_bytes(tone(24_000, duration_s=2.25), 24_000))
    whole = read_audio(file)
    blocks = list(iter_audio(file, block_s))

    assert whole.size == 36_000
    assert np.array_equal(np.concatenate(blocks), whole)
    block_samples = round(block_s * SAMPLE_RATE)
    assert {block.size for block in blocks[:-1]} <= {block_samples}
    assert 0 < blocks[-1].size <= block_samples


def test_blocks_that_come_out_even() -> None:
    file = io.BytesIO(wav_bytes(tone(16_000, duration_s=2), 16_000))
    assert [block.size for block in iter_audio(file, 0.5)] == [8_000] * 4


def test_blocks_are_read_as_they_are_asked_for() -> None:
    file = io.BytesIO(wav_bytes(np.zeros(16_000 * 120, np.float32), 16_000))
    blocks = iter_audio(file, 1.0)
    next(blocks)
    assert file.tell() < 0.1 * file.getbuffer().nbytes


def test_rate_change_midway() -> None:
    """AAC and MP3 streams may be joined end to end."""
    parts = []
    for rate_hz in (24_000, 44_100):
        file = io.BytesIO()
        write(file, "adts", "aac", [tone(rate_hz)], rate_hz)
        parts.append(file.getvalue())
    samples = read_audio(io.BytesIO(b"".join(parts)))
    assert samples.size == sum(read_audio(io.BytesIO(part)).size for part in parts)
    assert sine_level(samples[:SAMPLE_RATE]) == pytest.approx(0.5, abs=0.02)
    assert sine_level(samples[SAMPLE_RATE + 2_000 :]) == pytest.approx(0.5, abs=0.02)


def test_duration() -> None:
    file = io.BytesIO(wav_bytes(tone(8_000, duration_s=3.5), 8_000))
    file.seek(17)
    assert audio_duration_s(file) == pytest.approx(3.5)
    assert file.tell() == 17


def test_duration_unknown() -> None:
    """A WebM file written to something that can't seek has no length, as a browser's recorder makes it."""

    class Unseekable(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *_: int) -> int:
            raise io.UnsupportedOperation

    file = Unseekable()
    write(file, "webm", "libopus", [tone(48_000)], 48_000, "flt")
    recording = io.BytesIO(file.getvalue())
    assert audio_duration_s(recording) is None
    assert abs(read_audio(recording).size - SAMPLE_RATE) <= 400


# Errors


def assert_unreadable(source: Path | io.BytesIO, *parts: str) -> None:
    """All ways of reading raise the same error, and it says each of `parts`."""
    for read in (read_audio, lambda source: list(iter_audio(source))):
        with pytest.raises(ClientError) as caught:
            read(source)
        error = caught.value
        assert (error.code, error.param, error.type, error.status) == (
            "invalid_value",
            "file",
            "invalid_request_error",
            400,
        )
        for part in parts:
            assert part in error.message


def test_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "missing.wav"
    assert_unreadable(path, "'missing.wav'", "No such file")
    with pytest.raises(ClientError, match=r"missing\.wav"):
        audio_duration_s(path)


def test_folder(tmp_path: Path) -> None:
    assert_unreadable(tmp_path, f"'{tmp_path.name}'", "Is a directory")


def test_path_with_null_byte() -> None:
    assert_unreadable(Path("a\0b"), "null byte")


def test_address_is_no_path() -> None:
    assert_unreadable(Path("http://127.0.0.1:1/tone.wav"), "No such file")


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    assert_unreadable(tmp_path / "empty.wav", "'empty.wav'", "empty")
    assert_unreadable(io.BytesIO(), "the audio file", "empty")


def test_header_without_samples() -> None:
    assert_unreadable(io.BytesIO(wav_bytes(np.zeros(0, np.float32), 16_000)), "holds no audio")


@pytest.mark.parametrize("name", ["notes.wav", "notes.mp3", "notes.txt"])
def test_text(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("Call me Ishmael. Some years ago, never mind how long precisely.\n" * 200)
    assert_unreadable(tmp_path / name, f"'{name}'")
    with pytest.raises(ClientError) as caught:
        read_audio(tmp_path / name)
    assert str(tmp_path) not in caught.value.message


def test_noise_bytes() -> None:
    assert_unreadable(io.BytesIO(np.random.default_rng(3).bytes(20_000)))


def test_video_without_sound(tmp_path: Path) -> None:
    path = tmp_path / "mute.mp4"
    with av.open(path, "w") as output:
        stream = output.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        output.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        output.mux(stream.encode(None))
    assert_unreadable(path, "'mute.mp4'", "no audio stream")


def test_unknown_codec() -> None:
    file = io.BytesIO()
    write(file, "matroska", "flac", [tone(16_000)], 16_000, "s16")
    assert file.getvalue().count(b"A_FLAC") == 1
    assert_unreadable(io.BytesIO(file.getvalue().replace(b"A_FLAC", b"A_NONE")), "codec is not supported")


def test_unsupported_sample_format(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in: no codec at hand gives a format that PyAV can't turn into an array."""
    monkeypatch.delitem(av.audio.frame.format_dtypes, "s16")
    assert_unreadable(io.BytesIO(wav_bytes(tone(16_000), 16_000)), "format s16 are not supported")


def test_implausible_rate() -> None:
    assert_unreadable(io.BytesIO(wav_bytes(tone(16_000), 1)), "1 Hz")


def test_truncated_wav_gives_what_is_there() -> None:
    data = wav_bytes(tone(16_000), 16_000)
    assert read_audio(io.BytesIO(data[: 44 + 10_001])).size == 5_000


def test_truncated_beyond_use(tmp_path: Path) -> None:
    assert_unreadable(io.BytesIO(wav_bytes(tone(16_000), 16_000)[:20]), "not audio")
    path = tmp_path / "cut.mp4"
    write(path, "mp4", "aac", [tone(16_000)], 16_000)
    path.write_bytes(path.read_bytes()[:-400])  # the index is at the end
    assert_unreadable(path, "'cut.mp4'")


def damaged_flac(broken_every: int) -> io.BytesIO:
    """4 s of FLAC in Matroska with every so many-th packet replaced by noise; the container itself is whole."""
    good, damaged = io.BytesIO(), io.BytesIO()
    random = np.random.default_rng(5)
    write(good, "matroska", "flac", [random.uniform(-0.5, 0.5, 64_000).astype(np.float32)], 16_000, "s16")
    good.seek(0)
    with av.open(good) as source, av.open(damaged, "w", format="matroska") as output:
        stream = output.add_stream_from_template(source.streams.audio[0])
        for index, packet in enumerate(source.demux(source.streams.audio[0])):
            if packet.size:
                noise = av.Packet(random.bytes(packet.size))
                noise.pts, noise.dts, noise.time_base = packet.pts, packet.dts, packet.time_base
                written = noise if index % broken_every == 0 else packet
                written.stream = stream
                output.mux(written)
    return damaged


def test_broken_packets_are_left_out() -> None:
    assert read_audio(damaged_flac(1_000_000)).size == pytest.approx(64_000, rel=0.03)  # only the first is broken
    assert read_audio(damaged_flac(4)).size == pytest.approx(48_000, rel=0.03)


def test_broken_beyond_use() -> None:
    assert_unreadable(damaged_flac(1), "it is broken")


def test_link_to_other_files_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upload must not make the server open what it names."""
    (tmp_path / "secret.wav").write_bytes(wav_bytes(tone(16_000), 16_000))
    monkeypatch.chdir(tmp_path)
    listing = b"ffconcat version 1.0\nfile secret.wav\n"
    with av.open(io.BytesIO(listing), mode="r") as followed:  # ffmpeg does follow it where it may
        assert followed.format.name == "concat"
    assert_unreadable(io.BytesIO(listing))
    (tmp_path / "list.ffconcat").write_bytes(listing)
    assert_unreadable(tmp_path / "list.ffconcat")


def test_import_is_cheap() -> None:
    code = "import sys, auricle.audio.files; sys.exit('av' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
