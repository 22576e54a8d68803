"""Errors against packet loss: what is put in place of lost packets, and what it is worth.

    python benchmarks/packet_loss.py --audio FOLDER [--kind clean] [--codecs opus,pcmu] [--losses 0,5,20]

FOLDER holds a `manifest.jsonl` and the files, as `docs/bench.md` says. Packets of 20 ms are made of each recording,
some are lost (the same ones each time), and the rest goes through `RtpAudio` to the embedded model.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
from rich.console import Console
from rich.table import Table

from auricle.audio.concealment import Concealment
from auricle.audio.files import read_audio
from auricle.audio.formats import SAMPLE_RATE, AudioFormat, Samples, encode
from auricle.audio.packets import PacketDecoder, packet_decoder
from auricle.audio.resample import Resampler
from auricle.audio.rtp import Packet, RtpAudio
from auricle.bench.corpus import Clip, load_clips, of_kinds, silence
from auricle.bench.scoring import Score
from auricle.engines.moonshine import MoonshineModel
from auricle.engines.rolling import RollingEngine
from auricle.engines.silero import SileroDetector
from auricle.protocol.config import Transcription
from auricle.transcribe import transcribe

PACKET_S = 0.02
OPUS_BITS_PER_S = 32_000
"""What browsers send speech with."""


class Silence(Concealment):
    """Conceals nothing."""

    def __init__(self, decoder: PacketDecoder) -> None:
        super().__init__(decoder.rate_hz)

    def conceal(self, samples: int) -> Samples:
        return np.zeros(0, np.float32)


class Libopus(Silence):
    """What libopus makes up itself. To it a frame of no length stands for a lost one (RFC 6716 §3.2.1)."""

    LOST_FRAME = bytes([0x78])
    """20 ms as browsers send them: wideband, one frame of no length."""

    def __init__(self, decoder: PacketDecoder) -> None:
        super().__init__(decoder)
        self._decoder = decoder

    def follow(self, samples: Samples) -> Samples:
        return samples

    def conceal(self, samples: int) -> Samples:
        frames = -(-samples // round(PACKET_S * self._decoder.rate_hz))
        return np.concatenate([self._decoder.decode(self.LOST_FRAME) for _ in range(frames)])[:samples]


VARIANTS: dict[str, Callable[[PacketDecoder], Concealment]] = {
    "concealed": lambda decoder: Concealment(decoder.rate_hz),
    "libopus": Libopus,
    "silence": Silence,
}


def at_rate(samples: Samples, rate_hz: int) -> Samples:
    resampler = Resampler(SAMPLE_RATE, rate_hz)
    return np.concatenate([resampler.resample(samples), resampler.flush()])


def payloads(samples: Samples, codec: str) -> list[bytes]:
    """A recording as packets."""
    if codec != "opus":
        data = encode(at_rate(samples, 8_000), AudioFormat(f"audio/{codec}", 8_000))
        return [data[start : start + 160] for start in range(0, len(data), 160)]
    encoder = av.CodecContext.create("libopus", "w")
    encoder.bit_rate, encoder.format, encoder.layout, encoder.sample_rate = OPUS_BITS_PER_S, "s16", "mono", 48_000
    encoder.options = {"application": "voip"}
    pcm16 = (np.clip(at_rate(samples, 48_000), -1, 1) * 32_767).astype(np.int16)
    packets = []
    for start in range(0, pcm16.size - 959, 960):
        frame = av.AudioFrame.from_ndarray(pcm16[None, start : start + 960], format="s16", layout="mono")
        frame.sample_rate, frame.pts = 48_000, start
        packets += [bytes(packet) for packet in encoder.encode(frame)]
    return packets


def received(clip: Clip, codec: str, loss_percent: float, variant: str) -> Iterator[Samples]:
    """What the session hears of a recording."""
    decoder = packet_decoder(codec)
    audio = RtpAudio(decoder, VARIANTS[variant](decoder))
    chance = random.Random(f"{clip.id} {codec} {loss_percent}")
    step = round(decoder.rate_hz * PACKET_S)
    for number, payload in enumerate(payloads(np.concatenate([read_audio(clip.path), silence(1.0)]), codec)):
        if chance.random() * 100 >= loss_percent:
            yield audio.receive(Packet(number % 65_536, number * step, payload), number * PACKET_S)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audio", type=Path, required=True, help="folder with manifest.jsonl")
    parser.add_argument("--kind", default="clean")
    parser.add_argument("--codecs", default="opus,pcmu")
    parser.add_argument("--losses", default="0,5,20", help="percent of the packets, each lost by itself")
    arguments = parser.parse_args()
    clips = of_kinds(load_clips(arguments.audio), arguments.kind.split(","))
    engine, detector = RollingEngine(MoonshineModel.embedded()), SileroDetector.embedded()
    table = Table("codec", "lost, %", *(f"{variant}, WER %" for variant in VARIANTS))
    for codec in arguments.codecs.split(","):
        for loss_percent in map(float, arguments.losses.split(",")):
            cells = []
            for variant in VARIANTS:
                if variant == "libopus" and codec != "opus":
                    cells.append("")
                    continue
                score = Score()
                for clip in clips:
                    blocks = received(clip, codec, loss_percent, variant)
                    segments = transcribe(blocks, Transcription(model="moonshine/tiny-en"), detector, engine)
                    text = " ".join(segment.text for segment in segments)
                    score.add(clip.text, text, clip.scoring, clip.language)
                cells.append(f"{score.percent:.2f}")
            table.add_row(codec, f"{loss_percent:g}", *cells)
            print(codec, loss_percent, *cells, flush=True)
    Console().print(table)


if __name__ == "__main__":
    main()
