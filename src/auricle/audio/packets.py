"""Codecs of RTP packets: each packet's payload to samples, and something in place of packets that were lost.

Knows neither the order nor the time of packets (`rtp.py` does).
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from auricle.audio.concealment import Concealment
from auricle.audio.formats import AudioFormat, AudioType, SampleDecoder, Samples

_OPUS_RATE_HZ = 48_000
_G711_RATE_HZ = 8_000


class PacketDecoder(Protocol):
    """Decodes the packets of one stream in their order."""

    rate_hz: int
    """Of the samples, and of the stream's RTP timestamps."""

    def decode(self, payload: bytes) -> Samples:
        """The samples of the next packet, shape (n,), at `rate_hz`. Raises ValueError: it is none of this codec."""
        ...

    def conceal(self, samples: int) -> Samples:
        """At most so many samples in place of lost packets, shape (n,); what is missing is silence."""
        ...


class G711Decoder:
    """A `PacketDecoder` of PCMU or PCMA (RFC 3551 §4.5.14)."""

    rate_hz = _G711_RATE_HZ

    def __init__(self, law: AudioType) -> None:
        self._decoder = SampleDecoder(AudioFormat(law, _G711_RATE_HZ))
        self._concealment = Concealment(_G711_RATE_HZ)

    def decode(self, payload: bytes) -> Samples:
        return self._concealment.follow(self._decoder.decode(payload))

    def conceal(self, samples: int) -> Samples:
        return self._concealment.conceal(samples)


class OpusDecoder:
    """A `PacketDecoder` of Opus (RFC 6716, 7587), by libopus, which conceals lost packets itself."""

    rate_hz = _OPUS_RATE_HZ

    def __init__(self) -> None:
        import av

        self._av = av
        self._codec = av.CodecContext.create("libopus", "r")
        self._codec.layout = "mono"  # libopus mixes stereo down by itself
        self._codec.sample_rate = _OPUS_RATE_HZ
        self._lost_frame = b""
        """The last packet's first byte alone: a frame of no length, which stands for a lost one (RFC 6716 §3.2.1)."""

    def decode(self, payload: bytes) -> Samples:
        try:
            frames = self._codec.decode(self._av.Packet(payload))
        except self._av.FFmpegError as error:
            raise ValueError(f"no Opus packet: {error}") from None
        # The two low bits say how many frames are in the packet: 0 is one.
        self._lost_frame = bytes([payload[0] & 0b1111_1100])
        return np.concatenate([_to_samples(frame.to_ndarray()) for frame in frames])

    def conceal(self, samples: int) -> Samples:
        parts = [np.zeros(0, np.float32)]
        missing = samples
        while missing > 0 and self._lost_frame:
            [frame] = self._codec.decode(self._av.Packet(self._lost_frame))
            parts.append(_to_samples(frame.to_ndarray()))
            missing -= parts[-1].size
        return np.concatenate(parts)[:samples]


def _to_samples(pcm16: NDArray[Any]) -> Samples:
    samples: Samples = pcm16[0].astype(np.float32) / np.float32(32_768)
    return samples


def packet_decoder(codec_name: str) -> PacketDecoder | None:
    """The decoder for a codec by its name in SDP (RFC 8866 §6.6), in any case; None: there is none."""
    match codec_name.lower():
        case "opus":
            return OpusDecoder()
        case "pcmu":
            return G711Decoder("audio/pcmu")
        case "pcma":
            return G711Decoder("audio/pcma")
    return None


PACKET_CODECS = ("opus", "pcmu", "pcma")
"""What `packet_decoder` knows."""
