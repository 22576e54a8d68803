"""How right the times of words are, and what they cost.

    python benchmarks/word_times.py --audio FOLDER [--kind clean,far,…] [--model NAME] [--approaches PREFIX]

FOLDER holds a `manifest.jsonl` and the files, as `docs/bench.md` says; recordings whose `words` have no times are left
out. Each goes through a session as `auricle transcribe` has it. Words of the reference and of the transcript are
matched as `auricle bench` does it, and only words that are equal count. An error is how far a word's begin or end is
from that of the reference. Cost is CPU time: read the ratio.

`--approaches`: with the embedded model, several ways to find the times, on the whole recordings. The attention heads
are chosen on the recordings whose ids begin with PREFIX, and all ways are judged on the others.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from auricle.audio.files import read_audio
from auricle.audio.formats import SAMPLE_RATE, WINDOW_SAMPLES, Samples
from auricle.bench.corpus import Clip, Word, load_clips, of_kinds
from auricle.bench.latency import matched_words
from auricle.engines.alignment import boundaries
from auricle.engines.base import Align, Alignment, Decode, DetectSpeech, Engine, EngineError, Hypothesis, aligned
from auricle.engines.moonshine import MoonshineModel, embedded_folder
from auricle.engines.moonshine_aligner import FIRST_FRAME_SAMPLES, FRAME_SAMPLES
from auricle.engines.moonshine_graph import HEADS, build_graphs
from auricle.engines.registry import catalog, load_engine
from auricle.engines.silero import SileroDetector
from auricle.protocol.config import Transcription
from auricle.session.words import words_of
from auricle.settings import DEFAULT_MODEL, Settings
from auricle.transcribe import transcribe

out = Console(highlight=False)
Times = list[tuple[str, float, float]]
"""Words, and when each begins and ends in seconds."""


@dataclass
class Errors:
    """How far times are from where they should be, in seconds; late is positive."""

    starts_s: list[float] = field(default_factory=list)
    ends_s: list[float] = field(default_factory=list)

    def add(self, said: Sequence[Word], told: Times, scoring: str | None = None) -> None:
        """Count in the words of a recording."""
        places = [(_letters(word), float(index)) for index, (word, _, _) in enumerate(told)]
        for word, index in matched_words(said, places, scoring):
            _, start_s, end_s = told[int(index)]
            self.starts_s.append(start_s - word.start_s)
            self.ends_s.append(end_s - word.end_s)

    def columns(self) -> list[str]:
        """Number of words; of begins and ends the median error, the 90th percentile, and the shares of small ones."""
        columns = [str(len(self.starts_s))]
        for errors_s in (self.starts_s, self.ends_s):
            errors_ms = 1000 * np.abs(errors_s)
            columns += [f"{np.median(errors_ms):.0f} / {np.percentile(errors_ms, 90):.0f}"]
            columns += [" / ".join(f"{100 * np.mean(errors_ms <= limit):.0f}" for limit in (100, 200))]
        return columns


HEAD = ("words", "begin: p50 / p90 ms", "within 100 / 200 ms, %", "end: p50 / p90 ms", "within 100 / 200 ms, %")


def _letters(word: str) -> str:
    return word.lower().strip(" .,;:!?…-–—\"'“”‘’").replace("’", "'")


class TimedEngine:
    """An engine, and what its work costs. Implements `Engine` and `Aligner`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.decode_s = 0.0
        self.align_s = 0.0
        self.finals = 0

    def decode(self, jobs: Sequence[Decode]) -> Sequence[Hypothesis | EngineError]:
        """See `Engine`."""
        start_s = time.process_time()
        found = self._engine.decode(jobs)
        self.decode_s += time.process_time() - start_s
        self.finals += len(jobs)
        return found

    def align(self, jobs: Sequence[Align]) -> Sequence[Alignment | EngineError]:
        """See `Aligner`."""
        start_s = time.process_time()
        found = aligned(self._engine, jobs)
        self.align_s += time.process_time() - start_s
        return found


def through_sessions(clips: Sequence[Clip], name: str) -> None:
    """Measure a model and print a row for each group of recordings."""
    engine = TimedEngine(load_engine(catalog(Settings(model=name)).spec(name), 1))
    detector = SileroDetector.embedded()
    detector.load()
    errors: dict[str, Errors] = defaultdict(Errors)
    audio_s = 0.0
    for clip in track(clips, "Transcribing"):
        samples = read_audio(clip.path)
        audio_s += samples.size / SAMPLE_RATE
        segments = transcribe([samples], Transcription(model=name), detector, engine, with_words=True)
        told = [(word.word, word.start, word.end) for segment in segments for word in segment.words or ()]
        errors[clip.kind].add(clip.words, told, clip.scoring)
    table = Table("", *HEAD, title=name)
    for kind, found in errors.items():
        table.add_row(kind, *found.columns())
    out.print(table)
    each_ms = 1000 * engine.align_s / engine.finals
    out.print(
        f"{engine.finals} stretches, {audio_s / engine.finals:.1f} s of audio for each: "
        f"{each_ms:.1f} ms for the times, {100 * engine.align_s / engine.decode_s:.0f} % of what their text costs."
    )


@dataclass
class Heard:
    """A recording that the embedded model has heard."""

    clip: Clip
    words: list[tuple[str, int, int]]
    """The words of its text: with which token the letters of each begin, and where they end."""
    attention: NDArray[np.float32]
    """(heads, tokens + 1, frames), with the row before the first token."""
    speech: NDArray[np.bool_]
    """For each window whether it may be speech."""


def heard(clips: Iterable[Clip]) -> Iterator[Heard]:
    """What all heads look at while the model takes in its own text."""
    everything = [(layer, head) for layer in range(build_graphs(embedded_folder()).layers) for head in range(HEADS)]
    model = MoonshineModel(embedded_folder(), heads=everything)
    detector = SileroDetector.embedded()
    detector.load()
    for clip in clips:
        samples = read_audio(clip.path)
        tokens = model.tokens(model.decode(samples))
        ids = [number for token in tokens for number in token.ids]
        attention = model.aligner.attention(samples, ids)
        ends = np.cumsum([0, *(len(token.ids) for token in tokens)])
        words, begin = [], 0
        for word in words_of(tokens):
            inside = [index for index in range(begin, word.end) if any(map(str.isalnum, tokens[index].text))]
            words.append((word.key, int(ends[inside[0]]), int(ends[inside[-1] + 1])))
            begin = word.end
        yield Heard(clip, words, attention, speech_of(samples, detector, clip.id))


def speech_of(samples: Samples, detector: SileroDetector, name: str) -> NDArray[np.bool_]:
    padded = np.pad(samples, (0, -samples.size % WINDOW_SAMPLES))
    (probabilities,) = detector.detect([DetectSpeech(name, padded)])
    detector.release(name)
    return np.array(probabilities) >= 0.35


Way = Callable[[Heard], NDArray[np.intp]]
"""Gives the frame with which each token begins, and the last end."""


def summed(heads: Sequence[int]) -> Way:
    """The way of `engines/alignment.py`, with these heads."""
    return lambda found: boundaries(found.attention[list(heads)].mean(axis=0)[1:])


def highest(heads: Sequence[int]) -> Way:
    """Each token begins where most of its attention is."""

    def way(found: Heard) -> NDArray[np.intp]:
        peaks = found.attention[list(heads)].mean(axis=0)[1:].argmax(axis=1)
        return np.maximum.accumulate(np.append(peaks, found.attention.shape[2]))

    return way


def as_whisper(heads: Sequence[int]) -> Way:
    """Scaled over the tokens and smoothed over 7 frames first, as Whisper's authors do."""

    def way(found: Heard) -> NDArray[np.intp]:
        weights = found.attention[list(heads)]
        weights = (weights - weights.mean(axis=1, keepdims=True)) / (weights.std(axis=1, keepdims=True) + 1e-9)
        padded = np.pad(weights, ((0, 0), (0, 0), (3, 3)), mode="reflect")
        weights = np.median(np.lib.stride_tricks.sliding_window_view(padded, 7, axis=-1), axis=-1)
        return boundaries(weights.mean(axis=0)[1:])

    return way


def times_of(found: Heard, way: Way, *, has_detector: bool = True) -> Times:
    """The words, without the silence at their ends if there is a detector for it."""
    bounds_s = (way(found) * FRAME_SAMPLES + FIRST_FRAME_SAMPLES) / SAMPLE_RATE
    window_s = WINDOW_SAMPLES / SAMPLE_RATE
    times = []
    for word, begin, end in found.words:
        start_s, end_s = float(bounds_s[begin]), float(bounds_s[end])
        first = int(start_s / window_s)
        windows = np.flatnonzero(found.speech[first : int(np.ceil(end_s / window_s))])
        if has_detector and windows.size:
            start_s = max(start_s, (first + windows[0]) * window_s)
            end_s = min(end_s, (first + windows[-1] + 1) * window_s)
        times.append((word, start_s, end_s))
    return times


def judged(all_heard: Iterable[Heard], way: Way, *, has_detector: bool = True) -> Errors:
    """The errors of a way."""
    errors = Errors()
    for found in all_heard:
        errors.add(found.clip.words, times_of(found, way, has_detector=has_detector), found.clip.scoring)
    return errors


def chosen_heads(all_heard: Sequence[Heard], heads: int) -> list[int]:
    """The best head, then with it the best of the others, and so on: by the mean error of begins, each up to 0.5 s."""

    def cost(some: Sequence[int]) -> float:
        return float(np.minimum(np.abs(judged(all_heard, summed(some)).starts_s), 0.5).mean())

    chosen: list[int] = []
    for _ in range(4):
        rest = [head for head in range(heads) if head not in chosen]
        best = min(rest, key=lambda head: cost([*chosen, head]))
        if chosen and cost([*chosen, best]) >= cost(chosen):
            break
        chosen.append(best)
    return chosen


def compare(clips: Sequence[Clip], prefix: str) -> None:
    """Measure several ways and print a row for each."""
    short = [clip for clip in clips if clip.words[-1].end_s <= 20]
    everything = list(track(heard(short), "Listening", total=len(short)))
    ours = [found for found in everything if found.clip.id.startswith(prefix)]
    others = [found for found in everything if not found.clip.id.startswith(prefix)]
    heads = everything[0].attention.shape[0]
    best = chosen_heads(ours, heads)
    names = [f"{head // HEADS}.{head % HEADS}" for head in best]
    table = Table("", *HEAD, title=f"heads chosen on {len(ours)} recordings, judged on {len(others)}")
    for count in range(1, len(best) + 1):
        table.add_row(f"heads {', '.join(names[:count])}", *judged(others, summed(best[:count])).columns())
    two = best[:2]
    table.add_row("the first two, scaled and smoothed", *judged(others, as_whisper(two)).columns())
    table.add_row("the first two, highest attention", *judged(others, highest(two)).columns())
    table.add_row("the first two, no detector", *judged(others, summed(two), has_detector=False).columns())
    table.add_row("all heads", *judged(others, summed(range(heads))).columns())
    table.add_row("all heads, scaled and smoothed", *judged(others, as_whisper(range(heads))).columns())
    out.print(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audio", type=Path, required=True)
    parser.add_argument("--kind", default="")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--approaches", metavar="PREFIX")
    options = parser.parse_args()
    kinds = options.kind.split(",") if options.kind else []
    clips = [clip for clip in of_kinds(load_clips(options.audio), kinds) if clip.words]
    if options.approaches:
        compare(clips, options.approaches)
    else:
        through_sessions(clips, options.model)


if __name__ == "__main__":
    main()
