"""What is made up for lost packets."""

from __future__ import annotations

import numpy as np
import pytest

from auricle.audio.concealment import Concealment

RATE = 8_000


def tone(samples: int, start: int = 0, hertz: float = 200) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(start, start + samples) / RATE).astype(np.float32)


@pytest.mark.parametrize("hertz", [80, 133, 200, 380])
def test_a_voice_goes_on_in_its_pitch(hertz: float):
    concealment = Concealment(RATE)
    concealment.follow(tone(800, hertz=hertz))
    made_up = concealment.conceal(80)
    assert made_up.size == 80
    assert np.abs(made_up - tone(80, 800, hertz)).max() < 0.3


def test_it_fades_and_ends():
    concealment = Concealment(RATE)
    concealment.follow(tone(800))
    parts = [concealment.conceal(160) for _ in range(5)]
    loudness = [float(np.abs(part).max()) if part.size else 0 for part in parts]
    assert loudness[0] > 0.9
    assert loudness == sorted(loudness, reverse=True)
    assert sum(part.size for part in parts) == 0.06 * RATE


def test_what_follows_is_joined_smoothly_and_then_unchanged():
    concealment = Concealment(RATE)
    concealment.follow(tone(800))
    made_up = concealment.conceal(160)
    after = tone(160, 960 + 13)
    joined = concealment.follow(after)
    assert np.abs(np.diff(np.concatenate([made_up, joined]))).max() < 0.35
    assert np.array_equal(joined[20:], after[20:])
    assert np.array_equal(concealment.follow(after), after)


def test_nothing_is_made_up_of_silence():
    concealment = Concealment(RATE)
    assert not concealment.conceal(160).any()
    concealment.follow(np.zeros(800, np.float32))
    assert not concealment.conceal(160).any()
    assert not concealment.follow(np.zeros(3, np.float32)).any()
