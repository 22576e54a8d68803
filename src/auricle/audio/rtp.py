"""The packets of an RTP stream in, an unbroken signal out. Knows no network: times and packets are arguments.

There is no playout, so nothing is held back for the sake of an even pace: a packet is decoded as it comes, and only if
one is missing do those after it wait a moment. Positions come from the packets' timestamps, so that what is lost
leaves no hole. While nothing comes, positions come from the clock.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from auricle.audio.concealment import Concealment
from auricle.audio.formats import Samples
from auricle.audio.packets import PacketDecoder
from auricle.audio.resample import Resampler

REORDER_PACKETS = 3
"""So many later packets are here, and a missing one counts as lost (as many as TCP takes, RFC 5681 §3.2)."""
REORDER_S = 0.1
"""After this long it does too."""
SILENT_AFTER_S = 0.5
"""After this long without a packet the sender counts as silent; until then the network may be slow."""
MAX_LEAD_S = 1.0
"""How much later than the clock a timestamp may claim to be; beyond it the sender's clock was set anew."""


@dataclass(frozen=True, slots=True)
class Packet:
    """What counts of an RTP packet (RFC 3550 §5.1)."""

    sequence_number: int
    """16 bits"""
    timestamp: int
    """32 bits, in the codec's rate."""
    payload: bytes


def _step(later: int, earlier: int, bits: int) -> int:
    """From one number to another of those that wrap around."""
    half = 1 << (bits - 1)
    return (later - earlier + half) % (1 << bits) - half


class RtpAudio:
    """One stream's signal at 16 kHz. Owns the order of its packets and its decoder. `now_s` is of any steady clock."""

    def __init__(self, decoder: PacketDecoder, concealment: Concealment | None = None) -> None:
        """`concealment` is another than the usual one, to compare them."""
        self._decoder = decoder
        self._concealment = concealment or Concealment(decoder.rate_hz)
        self._resampler = Resampler(decoder.rate_hz)
        self._waiting: dict[int, tuple[Packet, float]] = {}
        """Packets after a missing one and when they came, by sequence number."""
        self._next_number: int | None = None
        """Sequence number that must come next; None before the first packet."""
        self._next_timestamp = 0
        """Timestamp of the sample that comes next."""
        self._last_arrival_s = 0.0
        """When the last packet came that was decoded, or since when silence has been put in."""
        self._is_silent = False
        self._has_lost = False

    def receive(self, packet: Packet, now_s: float) -> Samples:
        """Take in a packet, and give what can be told of the signal, shape (n,), maybe empty.

        Late packets, and those that came before, are dropped.
        """
        if self._next_number is None:
            self._next_number, self._next_timestamp = packet.sequence_number, packet.timestamp
            self._last_arrival_s = now_s
        if _step(packet.sequence_number, self._next_number, 16) < 0:
            return self._restart(packet, now_s)
        self._waiting.setdefault(packet.sequence_number, (packet, now_s))
        return self._resampler.resample(np.concatenate([_NOTHING, *self._take_waiting(now_s)]))

    def pass_time(self, now_s: float) -> Samples:
        """Give the silence that the sender leaves, or what waited long enough for a missing packet; maybe empty."""
        parts = [_NOTHING, *self._take_waiting(now_s)]
        missing_s = now_s - self._last_arrival_s
        if self._next_number is not None and (self._is_silent or missing_s >= SILENT_AFTER_S):
            self._is_silent = True
            parts.append(self._silence(round(missing_s * self._decoder.rate_hz)))
            self._last_arrival_s = now_s
        return self._resampler.resample(np.concatenate(parts))

    def _restart(self, packet: Packet, now_s: float) -> Samples:
        """Take a packet that seems to be old: the sender numbers anew if nothing else has come for a while."""
        if not self._is_silent and now_s - self._last_arrival_s < SILENT_AFTER_S:
            return _NOTHING
        self._next_number = packet.sequence_number
        return self.receive(packet, now_s)

    def _take_waiting(self, now_s: float) -> list[Samples]:
        parts: list[Samples] = []
        while self._waiting:
            due: int = self._next_number or 0
            number = min(self._waiting, key=lambda waiting: _step(waiting, due, 16))
            packet, arrival_s = self._waiting[number]
            if number != due:
                may_come = len(self._waiting) < REORDER_PACKETS and now_s - arrival_s < REORDER_S
                if may_come and not self._is_silent:
                    break
                self._has_lost = True
            del self._waiting[number]
            self._next_number = (number + 1) % (1 << 16)
            parts += self._play(packet, arrival_s)
        return parts

    def _play(self, packet: Packet, arrival_s: float) -> list[Samples]:
        """The signal from where it ended to the end of this packet."""
        parts: list[Samples] = []
        if not packet.payload:  # sent to keep the way open
            return parts
        gap = _step(packet.timestamp, self._next_timestamp, 32)
        if 0 < gap < (arrival_s - self._last_arrival_s + MAX_LEAD_S) * self._decoder.rate_hz:
            if self._has_lost:
                parts.append(self._concealment.conceal(gap))
            parts.append(self._silence(gap - sum(part.size for part in parts)))
        # Else its clock stood still while we put in silence, or was set: the packet just follows.
        try:
            parts.append(self._concealment.follow(self._decoder.decode(packet.payload)))
        except ValueError:
            self._next_timestamp = packet.timestamp  # what it would have held is filled when the next one comes
            self._has_lost = True
            return parts
        self._next_timestamp = (packet.timestamp + parts[-1].size) % (1 << 32)
        self._last_arrival_s = arrival_s
        self._is_silent = self._has_lost = False
        return parts

    def _silence(self, samples: int) -> Samples:
        self._next_timestamp = (self._next_timestamp + samples) % (1 << 32)
        return np.zeros(samples, np.float32)


_NOTHING: Samples = np.zeros(0, np.float32)
