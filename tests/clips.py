"""Real speech for tests: the clip in the model's wheel, and the recordings beside the repository if there are any."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import wave
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

from auricle.audio.files import read_audio
from auricle.audio.formats import SAMPLE_RATE, AudioFormat, Samples, encode
from auricle.audio.resample import Resampler
from auricle.engines.moonshine import embedded_folder
from auricle.engines.moonshine_vocabulary import Vocabulary

SHARED_AUDIO = Path(__file__).resolve().parents[2] / "shared" / "audio"

PCM_24K = AudioFormat("audio/pcm", 24_000)
ULAW = AudioFormat("audio/pcmu", 8_000)
ALAW = AudioFormat("audio/pcma", 8_000)


@cache
def two_cities() -> Samples:
    """44 s, the opening of *A Tale of Two Cities*; float32 mono, 16 kHz."""
    spec = importlib.util.find_spec("moonshine_voice")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return read_audio(Path(spec.submodule_search_locations[0]) / "assets" / "two_cities.wav")


def shared_clips(kind: str) -> list[dict]:
    """The manifest's entries of a kind; none where the recordings are missing."""
    manifest = SHARED_AUDIO / "manifest.jsonl"
    if not manifest.exists():
        return []
    return [clip for clip in map(json.loads, manifest.read_text().splitlines()) if clip["kind"] == kind]


@cache
def shared_audio(file: str) -> Samples:
    """A recording of the manifest; float32 mono, 16 kHz."""
    return read_audio(SHARED_AUDIO / file)


def sherpa_moonshine(folder: Path) -> Path:
    """Make a folder of the embedded model's files with a list of tokens, as sherpa-onnx has it. Returns the folder."""
    source = embedded_folder()
    folder.mkdir(parents=True, exist_ok=True)
    for file in ("encoder_model.ort", "decoder_model_merged.ort"):
        (folder / file).symlink_to(source / file)
    pieces = Vocabulary((source / "tokenizer.bin").read_bytes()).pieces
    lines = (f"{base64.b64encode(piece).decode()} {number}\n" for number, piece in enumerate(pieces))
    (folder / "tokens.txt").write_text("".join(lines))
    return folder


def silence(seconds: float) -> Samples:
    return np.zeros(round(seconds * SAMPLE_RATE), np.float32)


def wire_bytes(samples: Samples, audio_format: AudioFormat = PCM_24K) -> bytes:
    """What a client would send for audio at 16 kHz."""
    resampler = Resampler(SAMPLE_RATE, audio_format.rate_hz)
    return encode(np.concatenate([resampler.resample(samples), resampler.flush()]), audio_format)


def appends(data: bytes, chunk_bytes: int = 4800) -> Iterator[str]:
    """The base64 of `append` events."""
    for start in range(0, len(data), chunk_bytes):
        yield base64.b64encode(data[start : start + chunk_bytes]).decode()


def wav(samples: Samples) -> bytes:
    """A file of 16 kHz."""
    file = io.BytesIO()
    with wave.open(file, "wb") as recording:
        recording.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        recording.writeframes((samples * 32767).astype("<i2").tobytes())
    return file.getvalue()
