"""Audio and the positions on it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auricle.audio.formats import WINDOW_SAMPLES, AudioFormat, Samples, encode
from auricle.session.input_buffer import InputAudioBuffer, to_ms, to_samples

PCM_16K = AudioFormat("audio/pcm", 16_000)
RAMP: Samples = (np.arange(6_000) - 3_000).astype(np.float32) / 32_768
"""Each sample tells its position."""


def buffer_of(samples: Samples = RAMP) -> InputAudioBuffer:
    buffer = InputAudioBuffer(PCM_16K)
    buffer.append_bytes(encode(samples, PCM_16K))
    return buffer


def test_positions_are_told_in_whole_milliseconds() -> None:
    assert to_ms(to_samples(1234)) == 1234
    assert to_ms(31) == 1


def test_audio_is_read_between_positions() -> None:
    buffer = buffer_of()
    assert (buffer.start, buffer.appended, buffer.heard) == (0, 6_000, 0)
    np.testing.assert_array_equal(buffer.read(100, 4_000), RAMP[100:4_000])


def test_reading_gives_what_is_kept() -> None:
    buffer = buffer_of()
    buffer.drop_before(1_000)
    np.testing.assert_array_equal(buffer.read(0, 10_000), RAMP[1_000:])
    assert buffer.read(0, 1_000).size == 0
    assert buffer.duration_samples == 5_000


def test_dropping_never_goes_back_and_never_past_the_end() -> None:
    buffer = buffer_of()
    buffer.drop_before(2_000)
    buffer.drop_before(1_000)
    assert buffer.start == 2_000
    buffer.drop_before(9_000)
    assert (buffer.start, buffer.duration_samples) == (6_000, 0)


def test_whole_windows_are_taken_once() -> None:
    buffer = buffer_of()
    first, second = buffer.take_unheard(3 * WINDOW_SAMPLES), buffer.take_unheard(1_000_000)
    np.testing.assert_array_equal(np.concatenate([first, second]), RAMP[: 11 * WINDOW_SAMPLES])
    assert first.size == 3 * WINDOW_SAMPLES
    assert buffer.take_unheard(1_000_000).size == 0


def test_a_window_is_heard_whole_though_half_of_it_was_dropped() -> None:
    buffer = InputAudioBuffer(PCM_16K)
    buffer.append_bytes(encode(RAMP[:300], PCM_16K))
    assert buffer.take_unheard(WINDOW_SAMPLES).size == 0
    buffer.drop_before(300)
    buffer.append_bytes(encode(RAMP[300:600], PCM_16K))
    np.testing.assert_array_equal(buffer.take_unheard(WINDOW_SAMPLES), RAMP[:WINDOW_SAMPLES])


def test_probabilities_belong_to_windows_that_end_inside() -> None:
    buffer = buffer_of()
    for index in range(5):
        buffer.hear(index / 10)
    w = WINDOW_SAMPLES
    assert buffer.heard == 5 * w
    assert buffer.probabilities(0, 5 * w) == [0.0, 0.1, 0.2, 0.3, 0.4]
    assert buffer.probabilities(w, 3 * w) == [0.1, 0.2]
    assert buffer.probabilities(w + 1, 3 * w - 1) == [0.1]
    buffer.drop_before(2 * w)
    assert buffer.probabilities(0, 9 * w) == [0.2, 0.3, 0.4]


def test_a_change_of_format_keeps_the_audio_before() -> None:
    buffer = buffer_of()
    buffer.use_format(AudioFormat("audio/pcmu", 8_000))
    buffer.append_bytes(b"\xff" * 800)
    buffer.flush()
    assert buffer.appended == 6_000 + 1_600
    np.testing.assert_array_equal(buffer.read(0, 6_000), RAMP)


@pytest.mark.parametrize("rate_hz", [8_000, 24_000, 44_100, 48_000])
def test_the_length_counts_what_the_resampler_holds(rate_hz: int) -> None:
    buffer = InputAudioBuffer(AudioFormat("audio/pcm", rate_hz))
    buffer.append_bytes(bytes(2 * rate_hz // 10))
    assert buffer.appended < 1_600 == buffer.duration_samples
    buffer.flush()
    assert buffer.appended == 1_600 == buffer.duration_samples


@given(st.data())
def test_any_chunking_gives_the_audio_and_windows_of_one_array(data: st.DataObject) -> None:
    """Appends, drops, reads and detections in any order against one plain array and plain numbers."""
    coded = encode(RAMP, PCM_16K)
    buffer = InputAudioBuffer(PCM_16K)
    sent = start = 0
    asked: list[Samples] = []
    for _ in range(data.draw(st.integers(1, 25), "steps")):
        match data.draw(st.sampled_from(["append", "drop", "read", "take", "hear"]), "step"):
            case "append":
                size = data.draw(st.integers(0, 1_500), "bytes")
                buffer.append_bytes(coded[sent : sent + size])
                sent = min(sent + size, len(coded))
            case "drop":
                position = data.draw(st.integers(-10, 7_000), "position")
                buffer.drop_before(position)
                start = min(max(start, position), sent // 2)
            case "read":
                begin, end = data.draw(st.integers(0, 6_500)), data.draw(st.integers(0, 6_500))
                expected = RAMP[: sent // 2][max(begin, start) : max(end, start)]
                np.testing.assert_array_equal(buffer.read(begin, end), expected)
            case "take":
                asked.append(buffer.take_unheard(data.draw(st.integers(1, 4), "windows") * WINDOW_SAMPLES))
            case "hear":
                if buffer.unheard_samples:
                    buffer.hear(0.5)
        assert (buffer.start, buffer.appended) == (start, sent // 2)
        assert buffer.duration_samples == sent // 2 - start
        assert buffer.heard % WINDOW_SAMPLES == 0
    asked.append(buffer.take_unheard(1_000_000))
    np.testing.assert_array_equal(np.concatenate(asked), RAMP[: sent // 2 // WINDOW_SAMPLES * WINDOW_SAMPLES])


@given(st.lists(st.integers(0, 4_000), max_size=12), st.sampled_from([8_000, 11_025, 24_000, 48_000]))
def test_positions_do_not_depend_on_chunks_or_flushes(sizes: list[int], rate_hz: int) -> None:
    buffer = InputAudioBuffer(AudioFormat("audio/pcm", rate_hz))
    for size in sizes:
        buffer.append_bytes(bytes(size))
        if size % 3 == 0:
            buffer.flush()
    buffer.flush()
    assert buffer.appended == (2 * (sum(sizes) // 2) * 16_000 + rate_hz) // (2 * rate_hz)
