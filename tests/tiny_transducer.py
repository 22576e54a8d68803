"""A streaming transducer in miniature, in the files that sherpa-onnx expects: real files for the real loading code.

Its weights are set by hand. It counts loud audio in its encoder's state: in the middle of each 0.32 s of it it says the
next number, and then whether that moment sounded low or high: ` one-low two-high three-low`. So its text tells if audio
was lost, heard twice or mixed up with another stream's. A number and its sound are two tokens.

It comes in three forms: that of icefall's transducers (Zipformer, LSTM, …), that of NeMo's (Nemotron), which knows two
languages: in German it takes low for high; and that of NeMo's CTC models.
"""

from __future__ import annotations

from dataclasses import dataclass, field
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
_LOUD, _NEMO_LOUD = -9.0, -9.0
"""From such a log energy on in any band it is loud; NeMo's bands are others."""
_COUNT = len(TOKENS)
_NEMO_ORDER = [*range(1, _COUNT), 0]
"""There the blank is the last token."""


def build(folder: Path) -> Path:
    """Write the model's files in icefall's form. Returns the folder."""
    _write_tokens(folder, TOKENS)
    graph = _Graph()
    _add_encoder(graph, "x", graph.op("Transpose", "c", perm=[1, 0, 2]), _LOUD, "encoder_out")
    graph.op("Transpose", "last_count", output="next_c", perm=[1, 0, 2])
    graph.op("Identity", "h", output="next_h")
    state = (float, 1, "N", 1)
    graph.save(
        folder / "encoder-tiny.onnx",
        {"x": (float, "N", _IN_FRAMES + _AHEAD, _MELS), "h": state, "c": state},
        {"encoder_out": (float, "N", _OUTPUTS, _COUNT), "next_h": state, "next_c": state},
        **{"model_type": "lstm", "num_encoder_layers": 1, "d_model": 1, "rnn_hidden_size": 1},
        **{"T": _IN_FRAMES + _AHEAD, "decode_chunk_len": _IN_FRAMES},
    )
    row = (float, "N", _COUNT)
    graph = _Graph()
    last = graph.op("Gather", "y", graph.constant(np.int64(-1)), axis=1)
    graph.op("Gather", graph.constant(_after_token()), last, output="decoder_out")
    sizes = {"vocab_size": _COUNT, "context_size": 2}
    graph.save(folder / "decoder-tiny.onnx", {"y": (int, "N", 2)}, {"decoder_out": row}, **sizes)
    graph = _Graph()
    graph.op("Add", "encoder_out", "decoder_out", output="logit")
    graph.save(folder / "joiner-tiny.onnx", {"encoder_out": row, "decoder_out": row}, {"logit": row})
    return folder


def build_nemo(folder: Path) -> Path:
    """Write the model's files in NeMo's form. Returns the folder."""
    order = _NEMO_ORDER
    _write_tokens(folder, [TOKENS[number] for number in order])
    _save_nemo_encoder(folder / "encoder-tiny.onnx", is_ctc=False)
    column, state, whole = (float, "N", _COUNT, 1), (float, 1, "N", 1), (np.int32, "N")
    # Many tokens may come at one moment here, so it must know which number is next: that is in its decoder's state.
    graph = _Graph()
    is_number = graph.op("Less", "targets", graph.constant(np.int32(len(NUMBERS))))
    given = graph.op("Unsqueeze", graph.op("Cast", "targets", to=TensorProto.FLOAT), graph.constant(np.int64([0])))
    graph.op("Where", is_number, given, "h", output="next_h")
    after = graph.op("Mod", graph.op("Add", "next_h", graph.number(1)), graph.number(10), fmod=1)
    distance = graph.op("Sub", after, graph.constant(np.arange(10, dtype=np.float32)))
    square = graph.op("Mul", graph.op("Mul", distance, distance), graph.number(-100))
    pads = graph.constant(np.int64([0, 0, 0, 0, 0, _COUNT - len(NUMBERS)]))
    not_next = graph.op("Squeeze", graph.op("Pad", square, pads), graph.constant(np.int64([0])))
    last = graph.op("Gather", "targets", graph.constant(np.int64(-1)), axis=1)
    row = graph.op("Gather", graph.constant(_after_token()[np.ix_(order, order)]), last)
    row = graph.op("Add", row, not_next)
    graph.op("Unsqueeze", row, graph.constant(np.int64([2])), output="outputs")
    for name, target in (("target_length", "prednet_lengths"), ("c", "next_c")):
        graph.op("Identity", name, output=target)
    inputs = {"targets": (np.int32, "N", 1), "target_length": whole, "h": state, "c": state}
    outputs = {"outputs": column, "prednet_lengths": whole, "next_h": state, "next_c": state}
    graph.save(folder / "decoder-tiny.onnx", inputs, outputs)
    graph = _Graph()
    joined = graph.op("Transpose", graph.op("Add", "encoder_outputs", "decoder_outputs"), perm=[0, 2, 1])
    graph.op("Unsqueeze", joined, graph.constant(np.int64([1])), output="logits")
    inputs = {"encoder_outputs": column, "decoder_outputs": column}
    graph.save(folder / "joiner-tiny.onnx", inputs, {"logits": (float, "N", 1, 1, _COUNT)})
    return folder


def build_ctc(folder: Path) -> Path:
    """Write the model's files in the form of NeMo's CTC models, which can't look back at what was said. Returns it."""
    _write_tokens(folder, [TOKENS[number] for number in _NEMO_ORDER])
    _save_nemo_encoder(folder / "model-tiny.onnx", is_ctc=True)
    return folder


# What it hears and says


def words(*sounds: str) -> str:
    """What it says to so many words' worth of audio that sounds `low` or `high`."""
    return "".join(f" {NUMBERS[number % 10]}-{sound}" for number, sound in enumerate(sounds, 1))


def tone(seconds: float, hz: float, level: float = 0.3) -> np.ndarray:
    """A tone, float32, 16 kHz."""
    return (level * np.sin(2 * np.pi * hz * np.arange(round(seconds * 16_000)) / 16_000)).astype(np.float32)


def between(seconds: float, lowness: float) -> np.ndarray:
    """A sound between low and high: with `lowness` 0 it is either, with 1 the probability of low is e times higher."""
    return tone(seconds, LOW_HZ, 0.1) + tone(seconds, HIGH_HZ, 0.1 * float(np.exp(-(5 + lowness) / 2)))


# The networks


@dataclass
class _Graph:
    """A network in the making."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def op(self, kind: str, *inputs: str, output: str | None = None, **attributes: object) -> str:
        output = output or f"value{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def constant(self, value: object) -> str:
        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def number(self, value: float) -> str:
        return self.constant(np.float32(value))

    def part(self, x: str, axis: int, start: int, end: int = 2**31) -> str:
        return self.op("Slice", x, *(self.constant(np.int64([value])) for value in (start, end, axis)))

    def save(self, path: Path, inputs: dict, outputs: dict, **metadata: object) -> None:
        """`inputs` and `outputs`: a kind of numbers and a shape by name."""
        kinds = {float: TensorProto.FLOAT, int: TensorProto.INT64, np.int32: TensorProto.INT32}
        infos = [
            [helper.make_tensor_value_info(name, kinds[kind], shape) for name, (kind, *shape) in ends.items()]
            for ends in (inputs, outputs)
        ]
        graph = helper.make_graph(self.nodes, path.stem, *infos, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        helper.set_model_props(model, {key: str(value) for key, value in metadata.items()})
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, path)


def _write_tokens(folder: Path, tokens: list[str] | tuple[str, ...]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokens.txt").write_text("".join(f"{token} {number}\n" for number, token in enumerate(tokens)))
    (folder / "bpe.vocab").write_text("".join(f"{token}\t-1.0\n" for token in ("<unk>", *TOKENS[1:])))


def _save_nemo_encoder(path: Path, *, is_ctc: bool) -> None:
    graph = _Graph()
    frames = graph.op("Transpose", "audio_signal", perm=[0, 2, 1])
    counted = graph.op("Reshape", "cache_last_channel", graph.constant(np.int64([-1, 1, 1])))
    is_swapped = None if is_ctc else "prompt_index"
    by_output = _add_encoder(graph, frames, counted, _NEMO_LOUD, "unordered", is_swapped=is_swapped, is_ctc=is_ctc)
    graph.op("Gather", by_output, graph.constant(np.int64(_NEMO_ORDER)), output="ordered", axis=2)
    if is_ctc:
        graph.op("LogSoftmax", "ordered", output="outputs", axis=2)
    else:
        graph.op("Transpose", "ordered", output="outputs", perm=[0, 2, 1])
    graph.op("Div", "length", graph.constant(np.int64([4])), output="encoded_lengths")
    graph.op("Unsqueeze", "last_count", graph.constant(np.int64([1])), output="cache_last_channel_next")
    for name in ("cache_last_time", "cache_last_channel_len"):
        graph.op("Identity", name, output=f"{name}_next")
    cache, number = (float, "N", 1, 1, 1), (int, "N")
    caches = {"cache_last_channel": cache, "cache_last_time": cache, "cache_last_channel_len": number}
    signal = (float, "N", _MELS, _IN_FRAMES + _AHEAD)
    graph.save(
        path,
        {"audio_signal": signal, "length": number} | caches | ({} if is_ctc else {"prompt_index": number}),
        {"outputs": (float, "N", *((_OUTPUTS, _COUNT) if is_ctc else (_COUNT, _OUTPUTS))), "encoded_lengths": number}
        | {f"{name}_next": kind for name, kind in caches.items()},
        **{"vocab_size": _COUNT - 1, "window_size": _IN_FRAMES + _AHEAD, "chunk_shift": _IN_FRAMES},
        **{"subsampling_factor": 4, "normalize_type": "NA", "pred_rnn_layers": 1, "pred_hidden": 1},
        **{f"{name}_dim{dim}": 1 for name in ("cache_last_channel", "cache_last_time") for dim in (1, 2, 3)},
        **{"prompt_dictionary": '{"en-US": 0, "de-DE": 1}', "auto_prompt_id": 0},
    )


def _add_encoder(
    graph: _Graph,
    frames: str,
    counted: str,
    loud_from: float,
    output: str,
    *,
    is_swapped: str | None = None,
    is_ctc: bool = False,
) -> str:
    """From frames (batch, frames, mels) to logits (batch, outputs, tokens) and `last_count` (batch, 1, 1).

    `counted` is the count so far, of the last's shape; of streams where `is_swapped` is 1, low is high. Unless it
    `is_ctc`, whoever adds to the logits knows when a sound must come.
    """
    shape = graph.constant(np.int64([0, _OUTPUTS, 4, _MELS]))
    mean = graph.op(
        "ReduceMean", graph.op("Reshape", graph.part(frames, 1, 0, _IN_FRAMES), shape), axes=[2], keepdims=0
    )
    low = graph.op("ReduceMax", graph.part(mean, 2, 0, _FIRST_HIGH_MEL), axes=[2], keepdims=1)
    high = graph.op("ReduceMax", graph.part(mean, 2, _FIRST_HIGH_MEL), axes=[2], keepdims=1)
    is_loud = graph.op("Greater", graph.op("Max", low, high), graph.number(loud_from))
    loud = graph.op("Cast", is_loud, to=TensorProto.FLOAT)
    count = graph.op("Add", graph.op("CumSum", loud, graph.constant(np.int64(1))), counted)
    graph.part(count, 1, -1)
    graph.nodes[-1].output[0] = "last_count"
    word = graph.number(WORD_FRAMES)

    def begins(late: int) -> tuple[str, str]:
        """The number of the word, and whether its middle was reached just so many outputs ago."""
        reached = graph.op("Add", count, graph.number(WORD_FRAMES / 2 - late))
        number = graph.op("Floor", graph.op("Div", reached, word))
        before = graph.op("Floor", graph.op("Div", graph.op("Sub", reached, loud), word))
        return number, graph.op("Sub", number, before)

    number, is_new = begins(0)
    digit = graph.op("Mod", number, graph.number(10), fmod=1)
    distance = graph.op("Sub", digit, graph.constant(np.arange(10, dtype=np.float32).reshape(1, 1, 10)))
    mismatch = graph.op("Mul", graph.op("Mul", distance, distance), graph.number(-100))
    said = graph.op("Mul", graph.op("Add", mismatch, graph.number(20)), is_new)
    numbers = graph.op("Sub", said, graph.number(10))
    lowness = graph.op("Sub", low, high)
    if is_swapped:
        sign = graph.op("Sub", graph.constant(np.int64(1)), graph.op("Add", is_swapped, is_swapped))
        by_stream = graph.op(
            "Reshape", graph.op("Cast", sign, to=TensorProto.FLOAT), graph.constant(np.int64([-1, 1, 1]))
        )
        lowness = graph.op("Mul", lowness, by_stream)
    sounds = graph.op("Mul", lowness, graph.constant(np.float32([[[0.5, -0.5]]])))
    if is_ctc:
        is_due = graph.op("Mul", begins(1)[1], graph.number(40))
        sounds = graph.op("Add", sounds, graph.op("Sub", is_due, graph.number(20)))
    blank = graph.op("Mul", loud, graph.number(0))
    return graph.op("Concat", blank, numbers, sounds, output=output, axis=2)


def _after_token() -> np.ndarray:
    """What each token makes of the next one's logits: after a number its sound must come, and no sound otherwise."""
    table = np.zeros((_COUNT, _COUNT), np.float32)
    numbers, sounds = slice(1, _COUNT - 2), slice(_COUNT - 2, None)
    table[:, sounds] = -40
    table[numbers, sounds] = 30
    table[numbers, numbers] = -40
    return table
