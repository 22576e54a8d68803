"""Moonshine in onnxruntime from the files that its authors ship, as they are: what the other scripts compare with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from auricle.audio.formats import SAMPLE_RATE, Samples
from auricle.engines.biasing import Logits
from auricle.engines.moonshine import EXTRA_TOKENS, MAX_TOKENS_PER_S, Greedy, decode_greedily

_HEADS, _HEAD_SIZE = 8, 36


class ShippedModel:
    """Both networks, one thread each."""

    def __init__(self, folder: Path) -> None:
        """`folder` has `encoder_model.ort` and `decoder_model_merged.ort`."""
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = settings.inter_op_num_threads = 1
        self._encoder = onnxruntime.InferenceSession(folder / "encoder_model.ort", settings)
        self._decoder = onnxruntime.InferenceSession(folder / "decoder_model_merged.ort", settings)

    def encode(self, samples: Samples) -> ShippedUtterance:
        """Hear the audio; returns the decoder before its first token."""
        mask = np.ones((1, samples.size), np.int64)
        (states,) = self._encoder.run(None, {"input_values": samples[np.newaxis], "attention_mask": mask})
        return ShippedUtterance(self._decoder, states, mask)

    def decode(self, samples: Samples, draft_ids: Sequence[int] = ()) -> Greedy:
        """As `MoonshineModel.decode`."""
        max_tokens = int(MAX_TOKENS_PER_S * samples.size / SAMPLE_RATE) + EXTRA_TOKENS
        return decode_greedily(self.encode(samples), max_tokens, draft_ids)


class ShippedUtterance:
    """The decoder inside one utterance. Implements `Predictor`; its caches stay inside onnxruntime."""

    def __init__(self, decoder: Any, states: Any, mask: Any) -> None:
        self._decoder = decoder
        self._value = onnxruntime.OrtValue.ortvalue_from_numpy
        names = [value.name for value in decoder.get_inputs() if value.name.startswith("past")]
        empty = self._value(np.zeros((1, _HEADS, 0, _HEAD_SIZE), np.float32))
        self._inputs = {
            **dict.fromkeys(names, empty),
            "encoder_hidden_states": self._value(states),
            "encoder_attention_mask": self._value(mask),
            "use_cache_branch": self._value(np.array([False])),
        }
        # Only the first call computes the audio's keys and values; asking for them again would copy them in every step.
        self._wanted = names
        self._text = [name for name in names if ".decoder." in name]

    def feed(self, ids: Sequence[int]) -> Logits:
        """See `Predictor`."""
        self._inputs["input_ids"] = self._value(np.array([ids], np.int64))
        outputs = [name.replace("past_key_values", "present") for name in self._wanted]
        logits, *caches = self._decoder.run_with_ort_values(["logits", *outputs], self._inputs)
        self._inputs |= dict(zip(self._wanted, caches, strict=True))
        self._inputs["use_cache_branch"] = self._value(np.array([True]))
        self._wanted = self._text
        found: Logits = logits.numpy()[0]
        return found

    def rewind(self, tokens: int) -> None:
        """See `Predictor`."""
        if tokens:
            for name in self._text:
                cache = self._inputs[name].numpy()[:, :, :-tokens]
                self._inputs[name] = self._value(np.ascontiguousarray(cache))
