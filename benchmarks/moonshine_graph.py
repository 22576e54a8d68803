"""What our own graphs of Moonshine save against the files as they are shipped, and what they change.

    python benchmarks/moonshine_graph.py --audio FOLDER [--kind clean]

FOLDER holds a `manifest.jsonl` and the files, as `docs/bench.md` says. Both have the same weights and one thread. A
recording is decoded whole, and as it grows by a second at a time, plainly and with the last result as a draft. Times
are CPU time; the two take turns on each recording, so read the ratios.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table
from shipped import ShippedModel

from auricle.audio.files import read_audio
from auricle.audio.formats import SAMPLE_RATE, Samples
from auricle.bench.corpus import Clip, load_clips, of_kinds
from auricle.bench.scoring import Score
from auricle.engines.moonshine import Greedy, MoonshineModel, embedded_folder


@dataclass
class Contender:
    """One way to run the weights, and what it took."""

    model: MoonshineModel | ShippedModel
    score: Score = field(default_factory=Score)
    encode_s: float = 0.0
    whole_s: float = 0.0
    tokens: int = 0
    growing_s: float = 0.0
    drafted_s: float = 0.0
    growing: int = 0
    changed: int = 0
    """How many of the growing decodings a draft gave another result."""

    def take(self, clip: Clip, samples: Samples, text_of: Callable[[Greedy], str]) -> None:
        """Decode a recording in all ways."""
        start_s = time.process_time()
        self.model.encode(samples)
        middle_s = time.process_time()
        found = self.model.decode(samples)
        self.encode_s += middle_s - start_s
        self.whole_s += time.process_time() - middle_s
        self.tokens += len(found.ids) + 1
        self.score.add(clip.text, text_of(found), clip.scoring, clip.language)
        draft_ids: list[int] = []
        for end in [*range(SAMPLE_RATE, samples.size, SAMPLE_RATE), samples.size]:
            start_s = time.process_time()
            plain = self.model.decode(samples[:end])
            middle_s = time.process_time()
            drafted = self.model.decode(samples[:end], draft_ids)
            self.growing_s += middle_s - start_s
            self.drafted_s += time.process_time() - middle_s
            self.growing += 1
            self.changed += drafted.ids != plain.ids
            draft_ids = drafted.ids


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audio", type=Path, required=True)
    parser.add_argument("--kind", default="clean")
    options = parser.parse_args()
    ours = MoonshineModel.embedded()
    ours.warm_up()
    contenders = {"ours": Contender(ours), "as shipped": Contender(ShippedModel(embedded_folder()))}

    def text_of(found: Greedy) -> str:
        return "".join(token.text for token in ours.tokens(found))

    audio_s = 0.0
    for clip in track(of_kinds(load_clips(options.audio), options.kind.split(",")), "Decoding"):
        samples = read_audio(clip.path)
        audio_s += samples.size / SAMPLE_RATE
        for contender in contenders.values():
            contender.take(clip, samples, text_of)
    table = Table("", *contenders, "ratio")
    rows: dict[str, Callable[[Contender], float]] = {
        "encoder, ms per second of audio": lambda one: 1000 * one.encode_s / audio_s,
        "decoder, ms per token": lambda one: 1000 * (one.whole_s - one.encode_s) / one.tokens,
        "whole recordings, % of a core": lambda one: 100 * one.whole_s / audio_s,
        "growing, ms a decoding": lambda one: 1000 * one.growing_s / one.growing,
        "growing with a draft, ms a decoding": lambda one: 1000 * one.drafted_s / one.growing,
        "changed by a draft, %": lambda one: 100 * one.changed / one.growing,
        "word error rate, %": lambda one: one.score.percent or 0.0,
    }
    for name, value in rows.items():
        numbers = [value(one) for one in contenders.values()]
        ratio = f"{numbers[0] / numbers[1]:.2f}" if numbers[1] else ""
        table.add_row(name, *(f"{number:.2f}" for number in numbers), ratio)
    Console().print(table)


if __name__ == "__main__":
    main()
