"""The spectrum and its way back, with masks that say by themselves what must come out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auricle.audio.denoise import (
    BANDS,
    DELAY_SAMPLES,
    FILTERED_BINS,
    HOP_SAMPLES,
    LOOK_AHEAD,
    TAPS,
    DenoisedStream,
    Mask,
)
from auricle.audio.formats import SAMPLE_RATE, Samples

NOISE = np.random.default_rng(1).normal(0, 0.1, SAMPLE_RATE).astype(np.float32)


def all_pass(frames: int, gain: float = 1.0) -> Mask:
    filters = np.zeros((frames, FILTERED_BINS, TAPS), np.complex64)
    filters[:, :, TAPS - 1 - LOOK_AHEAD] = gain
    return Mask(np.full((frames, BANDS), gain, np.float32), filters)


def cleaned(samples: Samples, sizes: list[int], gain: float = 1.0, strength: float = 1.0) -> Samples:
    """All of a stream in parts of these sizes, which begin again after the last."""
    stream, parts, start, number = DenoisedStream(), [], 0, 0
    while start < samples.size:
        size = sizes[number % len(sizes)]
        features = stream.analyse(samples[start : start + size])
        parts.append(stream.synthesise(all_pass(len(features.bands), gain), strength))
        start, number = start + size, number + 1
    return np.concatenate(parts)


def tone(frequency_hz: float) -> Samples:
    return (0.5 * np.sin(2 * np.pi * frequency_hz * np.arange(SAMPLE_RATE) / SAMPLE_RATE)).astype(np.float32)


def test_a_mask_of_ones_gives_the_samples_back_30_ms_late() -> None:
    assert DELAY_SAMPLES == 30 * SAMPLE_RATE // 1000
    found = cleaned(NOISE, [512])
    assert found.size == NOISE.size // HOP_SAMPLES * HOP_SAMPLES
    assert np.abs(found[:DELAY_SAMPLES]).max() < 1e-6
    assert found[DELAY_SAMPLES:] == pytest.approx(NOISE[: found.size - DELAY_SAMPLES], abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 3_000), min_size=1, max_size=5))
def test_what_comes_out_does_not_depend_on_how_it_came_in(sizes: list[int]) -> None:
    assert cleaned(NOISE, sizes, 0.5) == pytest.approx(cleaned(NOISE, [NOISE.size], 0.5), abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 3_000), min_size=1, max_size=5))
def test_features_do_not_depend_on_how_it_came_in(sizes: list[int]) -> None:
    whole = DenoisedStream().analyse(NOISE)
    stream, bands, bins, start, number = DenoisedStream(), [], [], 0, 0
    while start < NOISE.size:
        size = sizes[number % len(sizes)]
        features = stream.analyse(NOISE[start : start + size])
        bands.append(features.bands)
        bins.append(features.bins)
        start, number = start + size, number + 1
    assert np.concatenate(bands) == pytest.approx(whole.bands, abs=1e-5)
    assert np.concatenate(bins, axis=1) == pytest.approx(whole.bins, abs=1e-5)


@pytest.mark.parametrize("strength", [0.0, 0.25, 1.0])
def test_strength_is_the_share_that_is_taken_out(strength: float) -> None:
    found = cleaned(NOISE, [512], gain=0.0, strength=strength)
    assert found[DELAY_SAMPLES:] == pytest.approx((1 - strength) * NOISE[: found.size - DELAY_SAMPLES], abs=1e-6)


@pytest.mark.parametrize("frequency_hz", [5_200, 6_000, 7_600])
def test_a_gain_is_that_of_its_band(frequency_hz: float) -> None:
    """Bands over 4.8 kHz have gains, and the rest of the spectrum filters."""
    features = DenoisedStream().analyse(tone(frequency_hz))
    band = int(features.bands[2:].max(axis=0).argmax())
    for gain, level in ((np.arange(BANDS) != band, 0.01), (np.arange(BANDS) == band, 0.3)):
        stream = DenoisedStream()
        frames = len(stream.analyse(tone(frequency_hz)).bands)
        mask = all_pass(frames)
        found = stream.synthesise(Mask(np.tile(gain.astype(np.float32), (frames, 1)), mask.filters), 1.0)
        assert (found[SAMPLE_RATE // 4 : SAMPLE_RATE * 3 // 4].std() > 0.1) == (level > 0.1)


def test_a_filter_reaches_frames_before_and_after() -> None:
    """A click that is taken from the frame 20 ms later comes 20 ms early."""
    click = np.zeros(SAMPLE_RATE, np.float32)
    click[8_000] = 1
    low = cleaned(click, [512])
    stream = DenoisedStream()
    frames = len(stream.analyse(click).bands)
    mask = all_pass(frames)
    found = stream.synthesise(Mask(mask.gains * 0, np.roll(mask.filters, LOOK_AHEAD, axis=2)), 1.0)
    assert np.abs(low).argmax() == 8_000 + DELAY_SAMPLES
    assert np.abs(found).argmax() == 8_000 + DELAY_SAMPLES - LOOK_AHEAD * HOP_SAMPLES


def test_features_forget_loudness() -> None:
    quiet, loud = (DenoisedStream().analyse(np.tile(NOISE * gain, 8)) for gain in (0.1, 1.0))
    assert quiet.bands[-50:] == pytest.approx(loud.bands[-50:], abs=0.05)
    assert quiet.bins[:, -50:] / np.sqrt(0.1) == pytest.approx(loud.bins[:, -50:], rel=0.1, abs=0.02)


def test_nothing_gives_nothing() -> None:
    stream = DenoisedStream()
    assert len(stream.analyse(NOISE[:0]).bands) == len(stream.analyse(NOISE[:100]).bands) == 0
    assert stream.synthesise(all_pass(0), 1.0).size == 0
