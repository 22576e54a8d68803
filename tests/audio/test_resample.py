"""The resampler's sound and its counts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auricle.audio.formats import SAMPLE_RATE, Samples
from auricle.audio.resample import Resampler

RATES_HZ = [8_000, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000]


def noise(samples: int) -> Samples:
    return np.random.default_rng(7).uniform(-0.5, 0.5, samples).astype(np.float32)


def tone(frequency_hz: float, rate_hz: int, duration_s: float = 1.0) -> Samples:
    return (0.5 * np.sin(2 * np.pi * frequency_hz * np.arange(round(rate_hz * duration_s)) / rate_hz)).astype(
        np.float32
    )


def whole(samples: Samples, rate_hz: int, out_rate_hz: int = SAMPLE_RATE) -> Samples:
    """Resample in one go."""
    resampler = Resampler(rate_hz, out_rate_hz)
    return np.concatenate([resampler.resample(samples), resampler.flush()])


@pytest.mark.parametrize("rate_hz", RATES_HZ)
@given(sizes=st.lists(st.integers(0, 2_000), max_size=12))
@settings(max_examples=25, deadline=None)
def test_chunks_give_the_same_as_one_go(rate_hz: int, sizes: list[int]) -> None:
    samples = noise(sum(sizes))
    resampler = Resampler(rate_hz)
    parts, start, in_samples, out_samples = [], 0, 0, 0
    for size in sizes:
        parts.append(resampler.resample(samples[start : start + size]))
        start += size
        in_samples += size
        out_samples += parts[-1].size
        assert resampler.pending_samples == int(in_samples * SAMPLE_RATE / rate_hz + 0.5) - out_samples >= 0
    pending_samples = resampler.pending_samples
    parts.append(resampler.flush())

    assert parts[-1].size == pending_samples
    assert resampler.pending_samples == 0
    assert {part.dtype for part in parts} == {np.dtype(np.float32)}
    assert np.array_equal(np.concatenate(parts), whole(samples, rate_hz))


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_a_second_is_a_second(rate_hz: int) -> None:
    assert whole(noise(rate_hz), rate_hz).size == SAMPLE_RATE
    assert whole(noise(SAMPLE_RATE), SAMPLE_RATE, rate_hz).size == rate_hz


@pytest.mark.parametrize("rate_hz", RATES_HZ)
@given(utterances=st.lists(st.lists(st.integers(0, 400), max_size=4), max_size=8))
@settings(max_examples=25, deadline=None)
def test_flushes_keep_the_clock(rate_hz: int, utterances: list[list[int]]) -> None:
    resampler = Resampler(rate_hz)
    in_samples = out_samples = 0
    for sizes in utterances:
        for size in sizes:
            in_samples += size
            out_samples += resampler.resample(noise(size)).size
        out_samples += resampler.flush().size
        assert out_samples == (2 * in_samples * SAMPLE_RATE + rate_hz) // (2 * rate_hz)


@pytest.mark.parametrize("utterance_samples", [1, 2, 7, 101, 1_001])
@pytest.mark.parametrize("rate_hz", [11_025, 24_000, 44_100])
def test_thousands_of_flushes_do_not_drift(rate_hz: int, utterance_samples: int) -> None:
    resampler = Resampler(rate_hz)
    samples = noise(utterance_samples)
    out_samples = 0
    for _ in range(3_000):
        out_samples += resampler.resample(samples).size + resampler.flush().size
    assert out_samples == round(3_000 * utterance_samples * SAMPLE_RATE / rate_hz)


@pytest.mark.parametrize("rate_hz", [8_000, 24_000])
def test_a_flush_begins_a_new_signal(rate_hz: int) -> None:
    """What follows a flush sounds as if it had come first."""
    resampler = Resampler(rate_hz)
    samples = noise(rate_hz)
    for _ in range(3):
        again = np.concatenate([resampler.resample(samples), resampler.flush()])
        assert np.array_equal(again, whole(samples, rate_hz))


@pytest.mark.parametrize("rate_hz", RATES_HZ)
@pytest.mark.parametrize("frequency_hz", [100, 1_000, 3_400])
def test_a_tone_stays_as_it_is(rate_hz: int, frequency_hz: float) -> None:
    """Same frequency, level and phase: compared sample by sample with the tone made at the other rate."""
    resampler = Resampler(rate_hz)
    chunks = np.array_split(tone(frequency_hz, rate_hz), 50)
    resampled = np.concatenate([*[resampler.resample(chunk) for chunk in chunks], resampler.flush()])
    error = resampled - tone(frequency_hz, SAMPLE_RATE)
    assert np.abs(error[1_000:-1_000]).max() < 1e-4


def test_what_16_khz_cannot_hold_is_gone() -> None:
    for frequency_hz in (8_500, 10_000, 11_500):
        assert np.abs(whole(tone(frequency_hz, 24_000), 24_000)[1_000:-1_000]).max() < 1e-4


def test_flush_keeps_the_end() -> None:
    """The last syllable before a commit isn't lost: energy of the last 20 ms is there."""
    samples = tone(1_000, 24_000)
    samples[:-480] = 0
    resampled = whole(samples, 24_000)
    assert np.sqrt(np.mean(resampled[-320:] ** 2)) == pytest.approx(0.5 / 2**0.5, rel=0.1)
    assert np.abs(resampled[:-600]).max() < 1e-3


def test_equal_rates_pass_through() -> None:
    resampler = Resampler(SAMPLE_RATE)
    samples = noise(333)
    assert resampler.resample(samples) is samples
    assert resampler.pending_samples == 0
    assert resampler.flush().size == 0


@pytest.mark.parametrize("rate_hz", [16_000, 24_000])
def test_nothing_gives_nothing(rate_hz: int) -> None:
    resampler = Resampler(rate_hz)
    empty = np.zeros(0, np.float32)
    for _ in range(2):
        assert resampler.flush().size == 0
        assert resampler.resample(empty).size == 0
        assert resampler.pending_samples == 0
    assert resampler.flush().dtype == np.float32


@pytest.mark.parametrize("rates_hz", [(0, 16_000), (-8_000, 16_000), (24_000, 0)])
def test_rates_must_be_positive(rates_hz: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        Resampler(*rates_hz)
