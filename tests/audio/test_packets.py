"""Payloads to samples."""

from __future__ import annotations

import av
import numpy as np
import pytest

from auricle.audio.formats import AudioFormat, encode
from auricle.audio.packets import PACKET_CODECS, packet_decoder


def opus_packets(signal: np.ndarray, layout: str) -> list[bytes]:
    encoder = av.CodecContext.create("libopus", "w")
    encoder.bit_rate, encoder.format, encoder.layout, encoder.sample_rate = 64_000, "s16", layout, 48_000
    pcm16 = (signal * 32_767).astype(np.int16)
    channels = 2 if layout == "stereo" else 1
    frame = av.AudioFrame.from_ndarray(np.repeat(pcm16, channels)[None], format="s16", layout=layout)
    frame.sample_rate = 48_000
    return [bytes(packet) for packet in encoder.encode(frame) + encoder.encode(None)]


@pytest.mark.parametrize("layout", ["mono", "stereo"])
def test_opus_becomes_mono_at_48_khz(layout: str):
    signal = 0.5 * np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000)
    decoder = packet_decoder("opus")
    parts = [decoder.decode(packet) for packet in opus_packets(signal, layout)]
    assert decoder.rate_hz == 48_000
    assert {part.size for part in parts} == {960}
    samples = np.concatenate(parts)
    assert samples.dtype == np.float32
    assert 0.33 < np.sqrt((samples[4_800:43_200] ** 2).mean()) < 0.37


@pytest.mark.parametrize("law", ["pcmu", "pcma"])
def test_g711_becomes_8_khz(law: str):
    signal = np.linspace(-0.9, 0.9, 160, dtype=np.float32)
    decoder = packet_decoder(law)
    assert decoder.rate_hz == 8_000
    samples = decoder.decode(encode(signal, AudioFormat(f"audio/{law}", 8_000)))
    assert np.abs(samples - signal).max() < 0.03


@pytest.mark.parametrize("payload", [b"\xff", b"\x03\xff\xff"])
def test_what_is_no_opus_packet_is_refused(payload: bytes):
    with pytest.raises(ValueError, match="no Opus packet"):
        packet_decoder("opus").decode(payload)


def test_every_codec_has_a_decoder():
    assert all(packet_decoder(codec).rate_hz in (8_000, 48_000) for codec in PACKET_CODECS)
