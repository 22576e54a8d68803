"""When words were said, by where Moonshine's decoder looks in the audio. Knows no streams and no sessions.

The first layers of the decoder take in the whole text in one pass, which costs little; what costs is to encode the
audio. As times are asked for right after a text was found, what was encoded last is remembered.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auricle.audio.formats import SAMPLE_RATE, Samples
from auricle.engines.alignment import boundaries, spans_of
from auricle.engines.base import Align, Alignment, EngineError, Token
from auricle.engines.moonshine_graph import build_aligner
from auricle.engines.onnx_network import engine_errors, open_network, ort_value

START_ID = 1
MIN_SAMPLES = 895
"""The shortest input for which the encoder gives one frame."""
FRAME_SAMPLES = 384
"""From one frame of the encoder to the next."""
FIRST_FRAME_SAMPLES = (MIN_SAMPLES - FRAME_SAMPLES) // 2
"""Where the first frame begins: each hears MIN_SAMPLES and stands for the middle of them."""
ALIGNMENT_HEADS = ((1, 0), (1, 3))
"""Layer and head of those in the embedded model that follow the audio best, see `benchmarks/word_times.py`."""

REMEMBERED_SAMPLES = 120 * SAMPLE_RATE
"""How much audio stays encoded: 17 MB, and a second or so with many sessions."""


@dataclass(frozen=True, slots=True)
class _Encoding:
    """What the decoder takes of some audio."""

    audio: Mapping[str, Any]
    """Keys and values, by their names."""
    samples: int
    """How long it is, in samples, what was said before included."""
    context_samples: int = 0
    """How much of it was said before; `said_ids` are the tokens of that."""
    said_ids: tuple[int, ...] = ()


class MoonshineAligner:
    """The network that says where some heads look, and what was encoded last. Owned by the model.

    It is loaded when times are asked for first, and remembers nothing before that.
    """

    def __init__(
        self,
        folder: Path,
        heads: Sequence[tuple[int, int]],
        encode: Callable[[Samples, Sequence[str]], Mapping[str, Any]],
    ) -> None:
        """`heads` are layers and heads of the decoder; `encode` gives keys and values of audio by their names."""
        self._folder = folder
        self._heads = sorted(heads)
        self._encode = encode
        self._network: Any = None
        self._names: list[str] = []
        self._recent: OrderedDict[bytes, _Encoding] = OrderedDict()

    def remember(
        self, samples: Samples, audio: Mapping[str, Any], context_samples: int, said_ids: Sequence[int]
    ) -> None:
        """Speech was encoded, with so much before it, in which these tokens were said."""
        if self._network is None:
            return
        kept = {name: audio[name] for name in self._names}
        key = _key(samples)
        self._recent.pop(key, None)
        self._recent[key] = _Encoding(kept, samples.size + context_samples, context_samples, tuple(said_ids))
        while sum(encoding.samples for encoding in self._recent.values()) > REMEMBERED_SAMPLES:
            self._recent.popitem(last=False)

    def align(self, job: Align) -> Alignment:
        """Where each token was said. Raises EngineError: the model can't tell, or can't be run."""
        if not job.tokens:
            return Alignment(())
        self._load()
        encoding = self._recent.get(_key(job.samples)) or self._encoded(job.samples)
        attention = self._attention(encoding, _ids(job.tokens)).mean(axis=0)[len(encoding.said_ids) + 1 :]
        before = encoding.context_samples
        first = max(round((before - FIRST_FRAME_SAMPLES) / FRAME_SAMPLES), 0)
        frames = boundaries(attention[:, first:]) + first
        bounds = np.clip(frames * FRAME_SAMPLES + FIRST_FRAME_SAMPLES - before, 0, job.samples.size)
        return Alignment(spans_of([len(token.ids) for token in job.tokens], bounds.tolist()))

    def attention(self, samples: Samples, ids: Sequence[int]) -> NDArray[np.float32]:
        """Where the heads look as a text is taken in: (heads, len(ids) + 1, frames), the start before the text.

        The heads are in their order. Raises EngineError: as `align`.
        """
        self._load()
        return self._attention(self._encoded(samples), ids)

    def _encoded(self, samples: Samples) -> _Encoding:
        return _Encoding(self._encode(samples, self._names), samples.size)

    def _attention(self, encoding: _Encoding, ids: Sequence[int]) -> NDArray[np.float32]:
        all_ids = ort_value(np.array([[START_ID, *encoding.said_ids, *ids]], np.int64))
        with engine_errors("Moonshine"):
            (weights,) = self._network.run_with_ort_values(["weights"], {**encoding.audio, "ids": all_ids})
        found: NDArray[np.float32] = weights.numpy()[0]  # each token's own row is where it is taken in
        return found

    def _load(self) -> None:
        if self._network is not None:
            return
        if not self._heads:
            raise EngineError("It is not known which attention heads of this model follow the audio.")
        by_layer = {layer: [head for _, head in pairs] for layer, pairs in groupby(self._heads, lambda pair: pair[0])}
        graph = build_aligner(self._folder, by_layer)
        self._network = open_network(graph.SerializeToString(), "Moonshine", has_signed_weights=True)
        self._names = [entry.name for entry in self._network.get_inputs() if entry.name != "ids"]


def _ids(tokens: Sequence[Token]) -> list[int]:
    return [token_id for token in tokens for token_id in token.ids]


def _key(samples: Samples) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(samples).data, digest_size=16).digest()
