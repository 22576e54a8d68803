"""PCM16 and G.711 against ffmpeg's decoders, ITU-T's own encoder and the standard's anchor values."""

from __future__ import annotations

import itertools

import av
import numpy as np
import pytest
from clips import ALAW, PCM_24K, ULAW
from hypothesis import given, settings
from hypothesis import strategies as st

from auricle.audio.formats import AudioFormat, SampleDecoder, encode

FORMATS = [PCM_24K, ULAW, ALAW]
G711 = [(ULAW, "pcm_mulaw"), (ALAW, "pcm_alaw")]
ALL_CODES = bytes(range(256))
ALL_INT16 = np.arange(-32768, 32768)


def int16_values(format: AudioFormat, data: bytes) -> np.ndarray:
    """Decode in one go, as whole 16-bit values; fails where a sample isn't one."""
    values = SampleDecoder(format).decode(data).astype(np.float64) * 32768
    assert np.array_equal(values, np.rint(values))
    return values.astype(int)


def test_names_and_sizes() -> None:
    assert [(format.bytes_per_sample, format.bytes_per_ms) for format in FORMATS] == [(2, 48.0), (1, 8.0), (1, 8.0)]
    assert AudioFormat("audio/pcm", 11_025).bytes_per_ms == pytest.approx(22.05)


# PCM16


def test_pcm_is_little_endian() -> None:
    samples = SampleDecoder(PCM_24K).decode(b"\x00\x00\x00\x40\x00\x80\xff\x7f\x01\x00")
    assert samples.dtype == np.float32
    assert samples.tolist() == [0, 0.5, -1, 32767 / 32768, 1 / 32768]


def test_all_of_pcm_comes_back() -> None:
    data = ALL_INT16.astype("<i2").tobytes()
    assert encode(SampleDecoder(PCM_24K).decode(data), PCM_24K) == data


def test_pcm_rounds_and_clips() -> None:
    samples = np.array([1.0, 5.0, -1.0, -5.0, 0.4 / 32768, 0.6 / 32768, -0.6 / 32768, -1.4 / 32768], np.float32)
    assert np.frombuffer(encode(samples, PCM_24K), "<i2").tolist() == [32767, 32767, -32768, -32768, 0, 1, -1, -1]


@pytest.mark.parametrize("format", FORMATS)
@given(data=st.binary(max_size=200), cuts=st.lists(st.integers(0, 200)))
@settings(deadline=None)
def test_bytes_may_be_split_anywhere(format: AudioFormat, data: bytes, cuts: list[int]) -> None:
    whole = SampleDecoder(format).decode(data)
    decoder = SampleDecoder(format)
    edges = [0, *sorted(cuts), len(data)]
    parts = [decoder.decode(data[start:end]) for start, end in itertools.pairwise(edges)]

    assert whole.size == len(data) // format.bytes_per_sample
    assert {part.dtype for part in parts} == {np.dtype(np.float32)}
    assert np.array_equal(np.concatenate(parts), whole)


def test_odd_byte_waits_for_its_other_half() -> None:
    decoder = SampleDecoder(PCM_24K)
    assert decoder.decode(b"\x00").size == 0
    assert decoder.decode(b"").size == 0
    assert decoder.decode(b"\x40\x00").tolist() == [0.5]
    assert decoder.decode(b"\xc0").tolist() == [-0.5]


# G.711


@pytest.mark.parametrize(
    ("format", "code", "value"),
    [
        # Extremes, zeros and first steps of segments. G.711's tables 1a and 1b times 8, 2a and 2b times 4.
        (ULAW, 0x80, 8031 * 4),
        (ULAW, 0x00, -8031 * 4),
        (ULAW, 0xFF, 0),
        (ULAW, 0x7F, 0),
        (ULAW, 0xFE, 2 * 4),
        (ULAW, 0xEF, 33 * 4),
        (ULAW, 0x8F, 4191 * 4),
        (ALAW, 0xAA, 4032 * 8),
        (ALAW, 0x2A, -4032 * 8),
        (ALAW, 0xD5, 1 * 8),
        (ALAW, 0x55, -1 * 8),
        (ALAW, 0xC5, 33 * 8),
        (ALAW, 0xA5, 2112 * 8),
    ],
)
def test_values_of_the_standard(format: AudioFormat, code: int, value: int) -> None:
    assert int16_values(format, bytes([code])).tolist() == [value]


@pytest.mark.parametrize(("format", "codec"), G711)
def test_all_codes_as_ffmpeg_decodes_them(format: AudioFormat, codec: str) -> None:
    decoder = av.CodecContext.create(codec, "r")
    decoder.sample_rate, decoder.layout = 8_000, "mono"
    expected = np.concatenate([frame.to_ndarray()[0] for frame in decoder.decode(av.Packet(ALL_CODES))])
    assert expected.dtype == np.int16
    assert int16_values(format, ALL_CODES).tolist() == expected.tolist()


def test_codes_come_back() -> None:
    assert encode(SampleDecoder(ALAW).decode(ALL_CODES), ALAW) == ALL_CODES
    # Of µ-law's two zeros the positive one comes back.
    assert encode(SampleDecoder(ULAW).decode(ALL_CODES), ULAW) == ALL_CODES.replace(b"\x7f", b"\xff")


@pytest.mark.parametrize(("format", "codec"), G711)
def test_the_nearest_code_is_chosen(format: AudioFormat, codec: str) -> None:
    coded = encode((ALL_INT16 / 32768).astype(np.float32), format)
    values = int16_values(format, ALL_CODES)
    least_error = np.min([np.abs(ALL_INT16 - value) for value in values], axis=0)
    assert np.array_equal(np.abs(int16_values(format, coded) - ALL_INT16), least_error)


def itu_code(format: AudioFormat, sample: int) -> int:
    """The code for a 16-bit sample as G.191's alaw_compress and ulaw_compress find it: by G.711's decision values."""
    magnitude = ~sample if sample < 0 else sample
    if format == ULAW:
        magnitude = min((magnitude >> 2) + 33, 0x1FFF)
        segment = (magnitude >> 6).bit_length()
        code = (7 - segment) << 4 | 0xF - (magnitude >> (segment + 1) & 0xF)
    else:
        magnitude >>= 4
        segment = max(magnitude.bit_length() - 4, 0)
        code = magnitude if segment == 0 else segment << 4 | (magnitude >> (segment - 1)) - 16
        code ^= 0x55
    return code ^ (0x80 if sample >= 0 else 0)


@pytest.mark.parametrize(("format", "codec"), G711)
def test_codes_are_those_of_the_itu_encoder(format: AudioFormat, codec: str) -> None:
    """They differ only between segments: G.711 cuts at the end of the finer steps, not halfway between two values."""
    coded = np.frombuffer(encode((ALL_INT16 / 32768).astype(np.float32), format), np.uint8)
    expected = np.array([itu_code(format, int(sample)) for sample in ALL_INT16])
    expected[expected == 0x7F] = 0xFF if format == ULAW else 0x7F  # µ-law's negative zero
    different = coded != expected
    assert np.mean(different) < 0.02
    assert np.all((coded ^ expected)[different] & 0x70)  # another segment


@pytest.mark.parametrize(("format", "codec"), G711)
def test_g711_clips(format: AudioFormat, codec: str) -> None:
    assert encode(np.array([9, -9], np.float32), format) == encode(np.array([1, -1], np.float32), format)
    assert np.abs(int16_values(format, encode(np.array([9, -9], np.float32), format))).min() > 32_000


@pytest.mark.parametrize("format", FORMATS)
def test_nothing_gives_nothing(format: AudioFormat) -> None:
    assert SampleDecoder(format).decode(b"").size == 0
    assert encode(np.zeros(0, np.float32), format) == b""
