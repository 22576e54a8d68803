"""Packets to a signal: order, loss, silence and clocks, with a codec whose samples tell where they are from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auricle.audio.formats import SAMPLE_RATE, Samples
from auricle.audio.rtp import MAX_LEAD_S, REORDER_S, SILENT_AFTER_S, Packet, RtpAudio

STEP = 320
"""Samples in a packet: 20 ms."""
PACKET_S = STEP / SAMPLE_RATE


class Numbers:
    """A codec at 16 kHz whose packets are a level each."""

    rate_hz = SAMPLE_RATE

    def decode(self, payload: bytes) -> Samples:
        if payload == b"no packet":
            raise ValueError
        return np.full(STEP, payload[0] / 256, np.float32)


class Stream:
    """A stream with all that it gave. Packet `n` has the level `n + 1` and the time of its number."""

    def __init__(self, first_number: int = 0, first_timestamp: int = 0) -> None:
        self.audio = RtpAudio(Numbers())
        self.first_number, self.first_timestamp = first_number, first_timestamp
        self.signal: Samples = np.zeros(0, np.float32)

    def receive(self, number: int, *, now_s: float | None = None, late: int = 0, payload: bytes | None = None) -> None:
        """Receive packet `number`; its timestamp is `late` packets later."""
        packet = Packet(
            (self.first_number + number) % 2**16,
            (self.first_timestamp + (number + late) * STEP) % 2**32,
            bytes([number % 255 + 1]) if payload is None else payload,
        )
        self._take(self.audio.receive(packet, number * PACKET_S if now_s is None else now_s))

    def pass_time(self, now_s: float) -> None:
        self._take(self.audio.pass_time(now_s))

    def _take(self, samples: Samples) -> None:
        self.signal = np.concatenate([self.signal, samples])

    @property
    def levels(self) -> list[int]:
        """The level in the middle of every 20 ms."""
        return [round(float(level) * 256) for level in self.signal[STEP // 2 :: STEP]]


def test_packets_in_order_are_given_at_once():
    stream = Stream()
    for number in range(3):
        stream.receive(number)
        assert stream.signal.size == (number + 1) * STEP
    assert stream.levels == [1, 2, 3]


def test_numbers_and_timestamps_wrap_around():
    stream = Stream(2**16 - 2, 2**32 - STEP)
    for number in range(5):
        stream.receive(number)
    assert stream.levels == [1, 2, 3, 4, 5]


def test_packets_out_of_order_are_put_in_order():
    stream = Stream()
    for number in (0, 2, 1, 4, 3, 5):
        stream.receive(number)
    assert stream.levels == [1, 2, 3, 4, 5, 6]


def test_late_and_repeated_packets_change_nothing():
    stream = Stream()
    for number in (0, 1, 1, 3, 4, 5, 2, 3, 6):
        stream.receive(number)
    assert [stream.levels[place] for place in (0, 1, 3, 4, 5, 6)] == [1, 2, 4, 5, 6, 7]
    assert stream.signal.size == 7 * STEP


def test_a_lost_packet_is_concealed_once_three_later_ones_are_there():
    stream = Stream()
    for number in (0, 1, 3, 4):
        stream.receive(number)
    assert stream.signal.size == 2 * STEP
    stream.receive(5)
    assert stream.signal.size == 6 * STEP
    assert stream.levels[2] > 0
    assert stream.levels[3:] == [4, 5, 6]


def test_a_lost_packet_is_waited_for_only_so_long():
    stream = Stream()
    stream.receive(0)
    stream.receive(2)
    stream.pass_time(2 * PACKET_S + REORDER_S / 2)
    assert stream.signal.size == STEP
    stream.pass_time(2 * PACKET_S + REORDER_S)
    assert stream.signal.size == 3 * STEP


def test_a_pause_in_the_timestamps_without_loss_is_silence():
    """Opus and its like need not send silence (DTX)."""
    stream = Stream()
    stream.receive(0)
    stream.receive(1, late=4, now_s=5 * PACKET_S)
    assert stream.levels == [1, 0, 0, 0, 0, 2]


def test_a_long_loss_becomes_silence():
    stream = Stream()
    for number in (0, 20, 21, 22):
        stream.receive(number)
    assert stream.levels[5:20] == [0] * 15
    assert stream.levels[20:] == [21, 22, 23]


def test_a_sender_that_stops_becomes_silent_as_time_passes():
    stream = Stream()
    stream.pass_time(5)
    assert stream.signal.size == 0
    stream.receive(0, now_s=10)
    stream.pass_time(10 + SILENT_AFTER_S - 0.01)
    assert stream.signal.size == STEP
    stream.pass_time(10 + SILENT_AFTER_S)
    stream.pass_time(10 + SILENT_AFTER_S + 0.1)
    assert stream.signal.size == STEP + round((SILENT_AFTER_S + 0.1) * SAMPLE_RATE)


def test_after_a_silence_a_clock_that_went_on_is_followed():
    stream = Stream()
    stream.receive(0, now_s=0)
    stream.pass_time(1)
    stream.receive(1, late=59, now_s=1.2)  # a gap of 59 packets, of which 50 are there
    assert stream.signal.size == 61 * STEP


def test_after_a_silence_a_clock_that_stood_still_loses_nothing():
    stream = Stream()
    stream.receive(0, now_s=0)
    stream.pass_time(1)
    for number in range(1, 4):
        stream.receive(number, now_s=1 + number * PACKET_S)
    assert stream.levels == [1, *[0] * 50, 2, 3, 4]


def test_a_sender_that_begins_anew_is_heard_again():
    stream = Stream()
    stream.receive(1000, now_s=0)
    stream.receive(3, now_s=0.1)  # old, for all that is known
    assert stream.signal.size == STEP
    for number in range(4, 7):
        stream.receive(number, now_s=SILENT_AFTER_S + number * PACKET_S)
    assert stream.levels[1:] == [5, 6, 7]


def test_a_timestamp_from_the_far_future_is_not_believed():
    stream = Stream()
    stream.receive(0)
    stream.receive(1, late=round(MAX_LEAD_S / PACKET_S) + 100)
    assert stream.levels == [1, 2]


def test_what_is_no_packet_of_the_codec_counts_as_lost():
    stream = Stream()
    stream.receive(0)
    stream.receive(1, payload=b"no packet")
    stream.receive(2, payload=b"")
    stream.receive(3, payload=b"\x04", late=-1)  # the empty one took no time
    assert stream.signal.size == 3 * STEP
    assert stream.levels[0] == 1
    assert stream.levels[2] == 4


@settings(deadline=None)
@given(lost=st.sets(st.integers(1, 98)), seed=st.randoms(use_true_random=False))
def test_whatever_is_lost_or_swapped_the_clock_stays_true(lost: set[int], seed) -> None:
    numbers = [number for number in range(100) if number not in lost]
    for place in range(0, len(numbers) - 1, 2):
        if seed.random() < 0.3 and place:
            numbers[place], numbers[place + 1] = numbers[place + 1], numbers[place]
    stream = Stream()
    for arrival, number in enumerate(numbers):
        stream.receive(number, now_s=max(arrival, number) * PACKET_S)
    stream.pass_time(100 * PACKET_S + REORDER_S)
    assert stream.signal.size == 100 * STEP
    assert {number: stream.levels[number] for number in numbers} == {number: number + 1 for number in numbers}


@pytest.mark.parametrize("first", [0, 1, 65_530])
def test_a_signal_begins_with_its_first_packet(first: int):
    stream = Stream(first, 12_345)
    stream.receive(0)
    assert stream.levels == [1]
