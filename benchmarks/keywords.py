"""What keywords do: how many rare words are recognised with them, and what wrong ones cost.

    python benchmarks/keywords.py --audio FOLDER [--kinds clean,far,telephone,long] [--distractors 100] [--verbose]

FOLDER holds a `manifest.jsonl` and the files, as `docs/bench.md` says. The embedded model decodes each recording three
times: without keywords; with those of its own reference and as many DISTRACTORS of other recordings; and with the
distractors alone. Rare words are the words of all references that the model's vocabulary has no token for. Distractors
don't begin like any word of the recording, so that no other form of a distractor is said in it.
"""

from __future__ import annotations

import argparse
import random
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from auricle.audio.files import read_audio
from auricle.audio.formats import SAMPLE_RATE, Samples
from auricle.bench.corpus import Clip, load_clips, of_kinds
from auricle.bench.scoring import Score, normalised
from auricle.engines.base import Transcription, Utterance
from auricle.engines.moonshine import MoonshineModel, embedded_folder
from auricle.engines.moonshine_vocabulary import parse_tokenizer
from auricle.session.speech import quietest_sample

KINDS = "clean,far,telephone,long"
MIN_LETTERS = 4
STEM_LETTERS = 5
"""Words that agree in their first letters are taken for forms of one word."""
MAX_PIECE_S, CUT_S = 20.0, (8.0, 15.0)
"""Longer recordings are cut where they are quietest, in this stretch of what is left."""

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")


class Recogniser:
    """The embedded model, and what its decoding takes."""

    def __init__(self) -> None:
        self._model = MoonshineModel.embedded()
        self._model.warm_up()

    def text(self, samples: Samples, keywords: Sequence[str]) -> str:
        """What is said in one piece of audio."""
        options = Transcription(keywords=list(keywords) or None)
        tokens = self._model.transcribe([Utterance(samples, options)])[0].tokens
        return "".join(token.text for token in tokens).strip()


@dataclass
class Pass:
    """All recordings decoded in one way."""

    name: str
    score: Score = field(default_factory=Score)
    rare: int = 0
    """Rare words in the references; `found`, how many of them are in the texts."""
    found: int = 0
    invented: int = 0
    """Keywords in the texts that are not in the references."""
    decode_s: float = 0.0

    def add(self, clip: Clip, text: str, rare: Sequence[str], keywords: Sequence[str]) -> bool:
        """Count a text in; whether it has an error. `rare` are the rare words of its reference."""
        said = Counter(normalised(clip.text, clip.scoring, clip.language).split())
        heard = Counter(normalised(text, clip.scoring, clip.language).split())
        for word in {normalised(word) for word in rare}:
            self.rare += said[word]
            self.found += min(said[word], heard[word])
        self.invented += sum(max(0, heard[word] - said[word]) for word in {normalised(word) for word in keywords})
        return bool(self.score.add(clip.text, text, clip.scoring, clip.language))


class Bench:
    """The passes over some recordings."""

    def __init__(self, clips: Sequence[Clip], distractors: int, console: Console | None) -> None:
        """With a `console` every text with an error is printed there."""
        self._clips = clips
        self._recogniser = Recogniser()
        self._console = console
        self._count = distractors
        pieces = set(parse_tokenizer((embedded_folder() / "tokenizer.bin").read_bytes()))
        self._rare = {clip.id: list(rare_words(clip, pieces)) for clip in clips}
        self._pool = {word.lower(): word for words in self._rare.values() for word in words}

    def run(self, name: str, *, own: bool, distractors: bool) -> Pass:
        """Decode all recordings with the keywords of their own references, or distractors, or both, or none."""
        result = Pass(name)
        for clip in track(self._clips, name, transient=True):
            keywords = [*(self._rare[clip.id] if own else ()), *(self._distractors(clip) if distractors else ())]
            samples = read_audio(clip.path)
            start_s = time.process_time()
            text = " ".join(self._recogniser.text(piece, keywords) for piece in split(samples))
            result.decode_s += time.process_time() - start_s
            if result.add(clip, text, self._rare[clip.id], keywords) and self._console:
                self._console.print(f"{name}, {clip.path.name}: {text}", markup=False)
        return result

    def _distractors(self, clip: Clip) -> list[str]:
        """Rare words of other recordings: always the same ones for a recording."""
        stems = {stem(word) for word in _WORD.findall(clip.text)}
        others = [word for word in self._pool.values() if stem(word) not in stems]
        return random.Random(clip.id).sample(others, min(self._count, len(others)))


def rare_words(clip: Clip, pieces: set[bytes]) -> Iterator[str]:
    """The words of a reference, each once and without a possessive, that are no token of the model in any case."""
    if clip.scoring == "digits":
        return
    for word in dict.fromkeys(re.sub("['’]s?$", "", word) for word in _WORD.findall(clip.text)):
        forms = {word, word.lower(), word.capitalize()}
        if len(word) >= MIN_LETTERS and word.isalpha() and not any(f"▁{form}".encode() in pieces for form in forms):
            yield word


def stem(word: str) -> str:
    """What a word has in common with its other forms, roughly."""
    return word.lower()[:STEM_LETTERS]


def split(samples: Samples) -> Iterator[Samples]:
    """A recording in pieces that the model can decode at once."""
    while samples.size > MAX_PIECE_S * SAMPLE_RATE:
        first, last = (int(at_s * SAMPLE_RATE) for at_s in CUT_S)
        cut = first + quietest_sample(samples[first:last])
        yield samples[:cut]
        samples = samples[cut:]
    yield samples


def table(passes: Sequence[Pass]) -> Table:
    """The passes as a table."""
    result = Table(title="Keywords", title_justify="left")
    result.add_column("keywords")
    for heading in ("rare words found", "recall %", "WER %", "errors", "keywords invented", "CPU s"):
        result.add_column(heading, justify="right")
    for done in passes:
        recall = 100 * done.found / done.rare if done.rare else 0.0
        result.add_row(
            done.name,
            f"{done.found} of {done.rare}",
            f"{recall:.1f}",
            f"{done.score.percent or 0:.2f}",
            f"{done.score.errors}",
            f"{done.invented}",
            f"{done.decode_s:.1f}",
        )
    return result


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audio", type=Path, required=True, help="folder with manifest.jsonl")
    parser.add_argument("--kinds", default=KINDS, help="kinds of recordings, separated by commas")
    parser.add_argument("--distractors", type=int, default=100, help="keywords that are not said")
    parser.add_argument("--verbose", action="store_true", help="print every text that has an error")
    arguments = parser.parse_args()
    console = Console()
    clips = of_kinds(load_clips(arguments.audio), arguments.kinds.split(","))
    bench = Bench(clips, arguments.distractors, console if arguments.verbose else None)
    passes = [
        bench.run("none", own=False, distractors=False),
        bench.run(f"its own and {arguments.distractors} others", own=True, distractors=True),
        bench.run(f"{arguments.distractors} others", own=False, distractors=True),
    ]
    console.print(table(passes))


if __name__ == "__main__":
    main()
