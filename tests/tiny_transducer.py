"""A streaming transducer in miniature, in the files that sherpa-onnx expects: real files for the real loading code.

Its weights are set by hand. It counts loud audio in its encoder's state: in the middle of each 0.32 s of it it says the
next number, and then whether that moment sounded low or high: ` one-low two-high three-low`. So its text tells if audio
was lost, heard twice or mixed up with another stream's. A number and its sound are two tokens.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TOKENS = ("<blk>", *(f"▁{number}" for number in NUMBERS), "-low", "-high")
FRAME_S = 0.04
"""The time of one output."""
WORD_FRAMES = 8
"""So many loud outputs are a word."""
CHUNK_S = 0.32
"""How much audio is heard at a time, with 70 ms of the next."""
LOW_HZ, HIGH_HZ = 300.0, 3000.0
"""Tones that sound low and high."""

_OUTPUTS = 8
_IN_FRAMES, _AHEAD = 4 * _OUTPUTS, 7
_MELS, _FIRST_HIGH_MEL = 80, 30
"""The 30th of 80 mel bands begins near 1.1 kHz."""
_LOUD = -9.0
"""From such a log energy on in any band it is loud."""


def build(folder: Path) -> Path:
    """Write the model's files. Returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokens.txt").write_text("".join(f"{token} {number}\n" for number, token in enumerate(TOKENS)))
    (folder / "bpe.vocab").write_text("".join(f"{token}\t-1.0\n" for token in ("<unk>", *TOKENS[1:])))
    sizes = {"num_encoder_layers": 1, "d_model": 1, "rnn_hidden_size": 1}
    frames = {"T": _IN_FRAMES + _AHEAD, "decode_chunk_len": _IN_FRAMES}
    _save(_encoder(), folder / "encoder-tiny.onnx", {"model_type": "lstm"} | sizes | frames)
    _save(_decoder(), folder / "decoder-tiny.onnx", {"vocab_size": len(TOKENS), "context_size": 2})
    _save(_joiner(), folder / "joiner-tiny.onnx", {"joiner_dim": len(TOKENS)})
    return folder


def words(*sounds: str) -> str:
    """What it says to so many words' worth of audio that sounds `low` or `high`."""
    return "".join(f" {NUMBERS[number % 10]}-{sound}" for number, sound in enumerate(sounds, 1))


def tone(seconds: float, hz: float, level: float = 0.3) -> np.ndarray:
    """A tone, float32, 16 kHz."""
    return (level * np.sin(2 * np.pi * hz * np.arange(round(seconds * 16_000)) / 16_000)).astype(np.float32)


def between(seconds: float, lowness: float) -> np.ndarray:
    """A sound between low and high: with `lowness` 0 it is either, with 1 the probability of low is e times higher."""
    return tone(seconds, LOW_HZ, 0.1) + tone(seconds, HIGH_HZ, 0.1 * float(np.exp(-(5 + lowness) / 2)))


def _save(graph: onnx.GraphProto, path: Path, metadata: dict[str, object]) -> None:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {key: str(value) for key, value in metadata.items()})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def _graph(
    name: str, nodes: list[tuple[str, str, str, dict]], constants: dict, inputs: dict, outputs: dict
) -> onnx.GraphProto:
    """`nodes`: operator, its inputs, its output, its attributes. Shapes may have names."""
    made = [
        helper.make_node(operator, sources.split(), [target], **attributes)
        for operator, sources, target, attributes in nodes
    ]
    kinds = {np.dtype(np.int64): TensorProto.INT64}
    infos = [
        [helper.make_tensor_value_info(key, kinds.get(np.dtype(kind), TensorProto.FLOAT), shape)]
        for ends in (inputs, outputs)
        for key, (kind, shape) in ends.items()
    ]
    values = [info for (info,) in infos]
    initializers = [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()]
    return helper.make_graph(made, name, values[: len(inputs)], values[len(inputs) :], initializers)


def _encoder() -> onnx.GraphProto:
    constants = {
        "zero": np.int64([0]),
        "one": np.int64([1]),
        "end": np.int64([_IN_FRAMES]),
        "last": np.int64([-1]),
        "far": np.int64([2**31]),
        "first_high": np.int64([_FIRST_HIGH_MEL]),
        "mels": np.int64([2]),
        "by_output": np.int64([0, _OUTPUTS, 4, _MELS]),
        "loud_from": np.float32(_LOUD),
        "word": np.float32(WORD_FRAMES),
        "half_word": np.float32(WORD_FRAMES / 2),
        "ten": np.float32(10),
        "numbers": np.arange(10, dtype=np.float32).reshape(1, 1, 10),
        "far_apart": np.float32(-100),
        "sure": np.float32(20),
        "unlikely": np.float32(10),
        "nothing": np.float32(0),
        "half": np.float32([[[0.5, -0.5]]]),
        "time": np.int64(1),
    }
    nodes: list[tuple[str, str, str, dict]] = [
        ("Slice", "x zero end one", "heard", {}),
        ("Reshape", "heard by_output", "grouped", {}),
        ("ReduceMean", "grouped", "mean", {"axes": [2], "keepdims": 0}),
        ("Slice", "mean zero first_high mels", "low_bands", {}),
        ("Slice", "mean first_high far mels", "high_bands", {}),
        ("ReduceMax", "low_bands", "low", {"axes": [2], "keepdims": 1}),
        ("ReduceMax", "high_bands", "high", {"axes": [2], "keepdims": 1}),
        ("Max", "low high", "loudest", {}),
        ("Greater", "loudest loud_from", "is_loud", {}),
        ("Cast", "is_loud", "loud", {"to": TensorProto.FLOAT}),
        ("CumSum", "loud time", "loud_so_far", {}),
        ("Transpose", "c", "counted", {"perm": [1, 0, 2]}),
        ("Add", "loud_so_far counted", "count", {}),
        ("Add", "count half_word", "reached", {}),
        ("Sub", "reached loud", "before", {}),
        ("Div", "reached word", "words_exactly", {}),
        ("Div", "before word", "words_before_exactly", {}),
        ("Floor", "words_exactly", "words", {}),
        ("Floor", "words_before_exactly", "words_before", {}),
        ("Sub", "words words_before", "is_new", {}),
        ("Mod", "words ten", "number", {"fmod": 1}),
        ("Sub", "number numbers", "distance", {}),
        ("Mul", "distance distance", "square", {}),
        ("Mul", "square far_apart", "mismatch", {}),
        ("Add", "mismatch sure", "match", {}),
        ("Mul", "match is_new", "said", {}),
        ("Sub", "said unlikely", "number_logits", {}),
        ("Sub", "low high", "lowness", {}),
        ("Mul", "lowness half", "sound_logits", {}),
        ("Mul", "loud nothing", "blank_logit", {}),
        ("Concat", "blank_logit number_logits sound_logits", "encoder_out", {"axis": 2}),
        ("Identity", "h", "next_h", {}),
        ("Slice", "count last far one", "last_count", {}),
        ("Transpose", "last_count", "next_c", {"perm": [1, 0, 2]}),
    ]
    state = (np.float32, [1, "N", 1])
    inputs = {"x": (np.float32, ["N", _IN_FRAMES + _AHEAD, _MELS]), "h": state, "c": state}
    outputs = {"encoder_out": (np.float32, ["N", _OUTPUTS, len(TOKENS)]), "next_h": state, "next_c": state}
    return _graph("encoder", nodes, constants, inputs, outputs)


def _decoder() -> onnx.GraphProto:
    """After a number its sound must come, and no sound comes otherwise."""
    table = np.zeros((len(TOKENS), len(TOKENS)), np.float32)
    sounds, numbers = slice(len(TOKENS) - 2, None), slice(1, len(TOKENS) - 2)
    table[:, sounds] = -40
    table[numbers, sounds] = 30
    table[numbers, numbers] = -40
    nodes: list[tuple[str, str, str, dict]] = [
        ("Gather", "y last", "last_token", {"axis": 1}),
        ("Gather", "table last_token", "decoder_out", {"axis": 0}),
    ]
    inputs, outputs = {"y": (np.int64, ["N", 2])}, {"decoder_out": (np.float32, ["N", len(TOKENS)])}
    return _graph("decoder", nodes, {"table": table, "last": np.int64(-1)}, inputs, outputs)


def _joiner() -> onnx.GraphProto:
    row = (np.float32, ["N", len(TOKENS)])
    return _graph(
        "joiner",
        [("Add", "encoder_out decoder_out", "logit", {})],
        {},
        {"encoder_out": row, "decoder_out": row},
        {"logit": row},
    )
