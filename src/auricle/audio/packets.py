"""Codecs of RTP packets: a packet's payload to samples. Knows neither order, time nor loss (`rtp.py` does)."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from auricle.audio.formats import AudioFormat, AudioType, SampleDecoder, Samples

OPUS_RATE_HZ = 48_000
G711_RATE_HZ = 8_000


class PacketDecoder(Protocol):
    """Decodes the packets of one stream in their order."""

    rate_hz: int
    """Of the samples, and of the stream's RTP timestamps."""

    def decode(self, payload: bytes) -> Samples:
        """The samples of the next packet, shape (n,), at `rate_hz`. Raises ValueError: it is none of this codec."""
        ...


class G711Decoder:
    """A `PacketDecoder` of PCMU or PCMA (RFC 3551 §4.5.14)."""

    rate_hz = G711_RATE_HZ

    def __init__(self, law: AudioType) -> None:
        self._decoder = SampleDecoder(AudioFormat(law, G711_RATE_HZ))

    def decode(self, payload: bytes) -> Samples:
        return self._decoder.decode(payload)


class OpusDecoder:
    """A `PacketDecoder` of Opus (RFC 6716, 7587), by libopus."""

    rate_hz = OPUS_RATE_HZ

    def __init__(self) -> None:
        import av

        self._av = av
        self._codec = av.CodecContext.create("libopus", "r")
        self._codec.layout = "mono"  # libopus mixes stereo down by itself
        self._codec.sample_rate = OPUS_RATE_HZ

    def decode(self, payload: bytes) -> Samples:
        try:
            frames = self._codec.decode(self._av.Packet(payload))
        except self._av.FFmpegError as error:
            raise ValueError(f"no Opus packet: {error}") from None
        pcm16 = [np.zeros(0, np.int16), *(frame.to_ndarray()[0] for frame in frames)]
        samples: Samples = np.concatenate(pcm16).astype(np.float32) / np.float32(32_768)
        return samples


PACKET_CODECS = ("opus", "pcmu", "pcma")
"""What `packet_decoder` knows, by their names in SDP (RFC 8866 §6.6) in small letters."""


def packet_decoder(codec: str) -> PacketDecoder:
    """A new decoder for one of `PACKET_CODECS`."""
    return OpusDecoder() if codec == "opus" else G711Decoder("audio/pcmu" if codec == "pcmu" else "audio/pcma")
