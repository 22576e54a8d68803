"""Noise reduction: turns that noise begins, and what becomes of speech, with and without.

    python benchmarks/noise.py --audio FOLDER [--kind clean,noisy,far,telephone] [--library deepfilter|webrtc] [--mix]

FOLDER holds a `manifest.jsonl` and the files, as `docs/bench.md` says, with the kind `noise`. Each recording is played
to a session on the audio's own clock: detecting, cleaning and decoding take no time there. The noise is played at three
levels, clipped where it is too loud, as a microphone would. `--library webrtc` puts webrtc-noise-gain, if that is
installed, in the place of the network. `--mix` decodes the clean recordings whole, with the noise
put to them at several levels and the cleaned signal mixed in by several shares: what the recogniser should hear.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from auricle.audio.denoise import DELAY_SAMPLES
from auricle.audio.files import read_audio
from auricle.audio.formats import SAMPLE_RATE, Samples
from auricle.bench.corpus import Clip, load_clips, of_kinds, silence
from auricle.bench.scoring import Score
from auricle.engines.base import Decode, DetectSpeech, Utterance
from auricle.engines.deepfilter import DeepFilter
from auricle.engines.denoised import DenoisedDetector
from auricle.engines.moonshine import MoonshineModel
from auricle.engines.rolling import RollingEngine
from auricle.engines.silero import SileroDetector
from auricle.ids import new_id
from auricle.protocol.config import NoiseReduction, ServerVad, SessionConfig, Transcription
from auricle.protocol.events import SpeechStarted, TranscriptionCompleted
from auricle.session.session import Output, Session, SessionLimits

OPTIONS = Transcription(model="moonshine/tiny-en")
GAINS_DB = (-20, 0, 10, 20)
REDUCTIONS = {"none": None} | {kind: NoiseReduction(type=kind) for kind in ("near_field", "far_field")}
MIXES = (0.0, 0.1, 0.25, 0.5, 1.0)
"""Shares of the cleaned signal."""
SNRS_DB = (20, 10, 5, 0)
BEFORE_S, AFTER_S = 0.2, 1.5


class WebrtcFilter:
    """Noise suppression of WebRTC at its highest level, in the place of `DeepFilter`."""

    def __init__(self) -> None:
        self._streams: dict[str, tuple[object, bytes]] = {}

    def load(self) -> None:
        """There is nothing to load."""

    def clean(self, stream_id: str, samples: Samples, strength: float) -> Samples:
        """As `DeepFilter.clean`, but for the strength: it takes out what it can."""
        from webrtc_noise_gain import AudioProcessor

        processor, rest = self._streams.get(stream_id) or (AudioProcessor(0, 4), b"")
        pcm = rest + (np.clip(samples, -1, 1) * 32_767).astype("<i2").tobytes()
        size = SAMPLE_RATE // 100 * 2
        whole = len(pcm) // size * size
        cleaned = b"".join(processor.Process10ms(pcm[start : start + size]).audio for start in range(0, whole, size))
        self._streams[stream_id] = processor, pcm[whole:]
        return np.frombuffer(cleaned, "<i2").astype(np.float32) / 32_768

    def release(self, stream_id: str) -> None:
        """As `DeepFilter.release`."""
        self._streams.pop(stream_id, None)


@dataclass
class Player:
    """Plays audio to sessions and counts what it costs."""

    detector: SileroDetector
    denoised: DenoisedDetector
    engine: RollingEngine
    silence_ms: int
    audio_s: float = 0.0
    denoise_s: float = 0.0
    """CPU seconds of detection without the noise."""
    starts: int = 0
    texts: list[str] = field(default_factory=list)

    def play(self, samples: Samples, noise_reduction: NoiseReduction | None) -> tuple[int, str]:
        """How many turns there are in the audio, and their text."""
        turn_detection = ServerVad(silence_duration_ms=self.silence_ms)
        config = SessionConfig(
            transcription=OPTIONS,
            turn_detection=turn_detection,
            turn_detection_given=True,
            noise_reduction=noise_reduction,
        )
        session = Session(new_id("sess"), 0, config, SessionLimits(), new_id, is_live=False)
        self.starts, self.texts = 0, []
        self.audio_s += samples.size / SAMPLE_RATE
        self._perform(session, session.receive_audio(samples))
        self._perform(session, session.end_turn())
        self.detector.release(session.id)
        self.denoised.release(session.id)
        return self.starts, " ".join(filter(None, self.texts))

    def _perform(self, session: Session, outputs: Sequence[Output]) -> None:
        for output in outputs:
            match output:
                case DetectSpeech():
                    (probabilities,) = self.detector.detect([output])
                    cleaned = self._detect_denoised(output) if output.noise_reduction else None
                    self._perform(session, session.receive_speech(probabilities, cleaned))
                case Decode():
                    (hypothesis,) = self.engine.decode([output])
                    self._perform(session, session.receive_hypothesis(output.stream_id, hypothesis))
                case SpeechStarted():
                    self.starts += 1
                case TranscriptionCompleted():
                    self.texts.append(output.transcript)

    def _detect_denoised(self, job: DetectSpeech) -> list[float]:
        begin_s = time.process_time()
        (cleaned,) = self.denoised.detect([job])
        self.denoise_s += time.process_time() - begin_s
        return cleaned


def padded(clip: Clip, gain_db: float = 0.0) -> Samples:
    """The recording at a level, with silence around it."""
    samples = np.clip(read_audio(clip.path) * 10 ** (gain_db / 20), -1, 1).astype(np.float32)
    return np.concatenate([silence(BEFORE_S), samples, silence(AFTER_S)])


def false_starts(player: Player, clips: Sequence[Clip]) -> Table:
    """How often noise begins a turn."""
    table = Table("false starts a minute", *REDUCTIONS, title="noise")
    for gain_db in GAINS_DB:
        row = []
        for reduction in REDUCTIONS.values():
            audio = [padded(clip, gain_db) for clip in clips]
            starts = [player.play(samples, reduction)[0] for samples in audio]
            minutes = sum(samples.size for samples in audio) / SAMPLE_RATE / 60
            row.append(f"{sum(starts) / minutes:.1f} ({sum(starts)})")
        table.add_row(f"{gain_db:+} dB", *row)
    return table


def speech(player: Player, clips: Sequence[Clip]) -> Table:
    """What becomes of speech: recordings in which no turn begins, turns, and errors."""
    table = Table("recordings", "clips", *REDUCTIONS, title="speech: WER %, turns, clips without a turn")
    for group in dict.fromkeys(clip.group for clip in clips):
        members = [clip for clip in clips if clip.group == group]
        row = []
        for name, reduction in REDUCTIONS.items():
            score, turns, unheard = Score(), 0, 0
            for clip in track(members, f"{group}, {name}", transient=True):
                starts, text = player.play(padded(clip), reduction)
                score.add(clip.text, text, clip.scoring, clip.language)
                turns += starts
                unheard += not starts
            row.append(f"{score.percent:.1f}, {turns}, {unheard}")
        table.add_row(group, str(len(members)), *row)
    return table


def with_noise(samples: Samples, noise: Samples, snr_db: float) -> Samples:
    """Both together, the noise repeated as long as it is needed."""
    noise = np.tile(noise, samples.size // noise.size + 1)[: samples.size]
    gain = np.sqrt(np.square(samples).mean() / np.square(noise).mean() / 10 ** (snr_db / 10))
    return (samples + gain * noise).astype(np.float32)


def mixed(
    model: MoonshineModel, noise_filter: DeepFilter | WebrtcFilter, clips: Sequence[Clip], noise: Sequence[Samples]
) -> Table:
    """What a recogniser makes of whole recordings with some of the cleaned signal in them."""
    table = Table("WER %, whole", *(f"{share:.0%} cleaned" for share in MIXES), title="what the recogniser hears")
    kinds: list[tuple[str, float | None]] = [("clean", snr_db) for snr_db in (*SNRS_DB, None)]
    for kind, snr_db in [*kinds, ("far", None)]:
        scores = [Score() for _ in MIXES]
        name = kind if snr_db is None else f"clean + noise, {snr_db} dB"
        for number, clip in enumerate(track(of_kinds(clips, [kind]), name, transient=True)):
            samples = read_audio(clip.path)
            if snr_db is not None:
                samples = with_noise(samples, noise[number % len(noise)], snr_db)
            ahead = np.concatenate([samples, silence(0.1)])
            cleaned = noise_filter.clean(clip.id, ahead, 1.0)[DELAY_SAMPLES:][: samples.size]
            noise_filter.release(clip.id)
            for share, score in zip(MIXES, scores, strict=True):
                audio = samples[: cleaned.size] * np.float32(1 - share) + cleaned * np.float32(share)
                tokens = model.transcribe([Utterance(audio, OPTIONS)])[0].tokens
                score.add(clip.text, "".join(token.text for token in tokens), clip.scoring, clip.language)
        table.add_row(name, *(f"{score.percent:.1f}" for score in scores))
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audio", type=Path, required=True, help="folder with manifest.jsonl")
    parser.add_argument("--kind", default="clean,noisy,far,telephone", help="kinds of speech, separated by commas")
    parser.add_argument("--library", choices=["deepfilter", "webrtc"], default="deepfilter")
    parser.add_argument("--silence", type=int, default=500, help="milliseconds of silence that end a turn")
    parser.add_argument("--mix", action="store_true", help="decode with the cleaned signal mixed in, and nothing else")
    options = parser.parse_args()
    clips = load_clips(options.audio)
    noise, spoken = of_kinds(clips, ["noise"]), of_kinds(clips, options.kind.split(","))
    noise_filter = DeepFilter.embedded() if options.library == "deepfilter" else WebrtcFilter()
    denoised = DenoisedDetector(noise_filter, SileroDetector.embedded(raises_quiet_audio=False))
    model = MoonshineModel.embedded()
    model.warm_up()
    denoised.load()
    player = Player(SileroDetector.embedded(), denoised, RollingEngine(model), options.silence)
    console = Console()
    if options.mix:
        sounds = [samples for clip in noise if (samples := read_audio(clip.path)).any()]
        console.print(mixed(model, noise_filter, clips, sounds))
        return
    console.print(false_starts(player, noise))
    console.print(speech(player, spoken))
    reduced_s = player.audio_s * (len(REDUCTIONS) - 1) / len(REDUCTIONS)
    console.print(f"Detection without the noise takes {100 * player.denoise_s / reduced_s:.1f} % of a core.")


if __name__ == "__main__":
    main()
