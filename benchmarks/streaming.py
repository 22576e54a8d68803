"""What a model that streams by itself saves against decoding the speech so far again and again.

    python benchmarks/streaming.py [--seconds 20] [--streams 1 4 16] [--layers 12] [--width 384]

No recording and no weights are needed: the same random network, a conformer with a transducer's decoder, is written as
a streaming and as an offline model of sherpa-onnx, and both are led through a stretch of speech as a session leads
them, with one thread. Times are CPU time. The text is nonsense; what it costs to find it isn't.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from rich.table import Table

from auricle.audio.formats import SAMPLE_RATE, WINDOW_SAMPLES
from auricle.engines.base import Decode, Engine, Hypothesis, Stage, Transcription
from auricle.engines.registry import catalog, load_engine
from auricle.protocol.config import DEFAULT_DELAY
from auricle.session.decoding import CADENCES, STREAMING_CADENCE, Cadence
from auricle.session.speech import SURE_WINDOWS, TELLING_SAMPLES
from auricle.settings import Settings

VOCABULARY = 500
JOINER_WIDTH = 512
KERNEL = 31
CHUNK_FRAMES, AHEAD_FRAMES = 32, 7
"""What the streaming form hears at a time, and how much of the next; a frame is 10 ms, and four make an output."""
LEFT_OUTPUTS = 64
"""How far back it attends: 2.6 s."""
BLANK = 2.0
"""So much likelier is it that nothing is said: a few tokens a second are."""


@dataclass
class Graph:
    """A network in the making. Weights are drawn in the order in which they are asked for."""

    random: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    def op(self, kind: str, *inputs: str, output: str | None = None, **attributes: object) -> str:
        output = output or f"value{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def constant(self, value: object) -> str:
        name = f"constant{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def drawn(self, *shape: int) -> str:
        return self.constant(self.random.normal(0, shape[0] ** -0.5, shape).astype(np.float32))

    def linear(self, x: str, inputs: int, outputs: int) -> str:
        return self.op("MatMul", x, self.drawn(inputs, outputs))

    def normed(self, x: str, width: int) -> str:
        scale, bias = (self.constant(value(width, np.float32)) for value in (np.ones, np.zeros))
        return self.op("LayerNormalization", x, scale, bias)

    def save(self, path: Path, inputs: dict, outputs: dict, **metadata: object) -> None:
        """`inputs` and `outputs`: shapes by name, and `int` for whole numbers."""
        infos = [
            [
                helper.make_tensor_value_info(name, TensorProto.INT64 if kind is int else TensorProto.FLOAT, shape)
                for name, (kind, *shape) in ends.items()
            ]
            for ends in (inputs, outputs)
        ]
        graph = helper.make_graph(self.nodes, path.stem, *infos, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        helper.set_model_props(model, {key: str(value) for key, value in metadata.items()})
        onnx.save(model, path)


def layer(graph: Graph, x: str, width: int, seen: str | None, convolved: str | None) -> tuple[str, str, str]:
    """Attention, convolution and feed-forward over (batch, outputs, width).

    `seen` and `convolved` are what came before, in the streaming form. Returns the result and what these become.
    """
    h = graph.normed(x, width)
    seen = graph.op("Concat", seen, h, axis=1) if seen else h
    query, key, value = (graph.linear(source, width, width) for source in (h, seen, seen))
    scores = graph.op("MatMul", query, graph.op("Transpose", key, perm=[0, 2, 1]))
    shares = graph.op("Softmax", graph.op("Mul", scores, graph.constant(np.float32(width**-0.5))))
    x = graph.op("Add", x, graph.linear(graph.op("MatMul", shares, value), width, width))
    h = graph.op("Transpose", graph.normed(x, width), perm=[0, 2, 1])
    before = graph.op("Concat", convolved, h, axis=2) if convolved else h
    pads = [0, 0] if convolved else [KERNEL - 1, 0]
    h = graph.op("Conv", before, graph.drawn(width, 1, KERNEL), group=width, pads=pads)
    x = graph.op("Add", x, graph.op("Transpose", graph.op("Relu", h), perm=[0, 2, 1]))
    h = graph.op("Relu", graph.linear(graph.normed(x, width), width, 4 * width))
    return graph.op("Add", x, graph.linear(h, 4 * width, width)), seen, before


def sliced(graph: Graph, x: str, axis: int, start: int, end: int = 2**31) -> str:
    return graph.op("Slice", x, *(graph.constant(np.int64([value])) for value in (start, end, axis)))


def save_encoder(path: Path, layers: int, width: int, *, is_streaming: bool) -> None:
    graph = Graph(np.random.default_rng(0))
    frames = sliced(graph, "x", 1, 0, CHUNK_FRAMES) if is_streaming else whole_outputs(graph)
    grouped = graph.op("Reshape", frames, graph.constant(np.int64([0, -1, 320])))
    x = graph.linear(graph.op("Mul", grouped, graph.constant(np.float32(0.1))), 320, width)
    all_seen, all_convolved = [], []
    for number in range(layers):
        seen = convolved = None
        if is_streaming:  # (layers, outputs, batch, width) as sherpa-onnx keeps it
            index = graph.constant(np.int64(number))
            seen = graph.op("Transpose", graph.op("Gather", "seen", index, axis=0), perm=[1, 0, 2])
            convolved = graph.op("Transpose", graph.op("Gather", "convolved", index, axis=0), perm=[1, 2, 0])
        x, seen, convolved = layer(graph, x, width, seen, convolved)
        first = graph.constant(np.int64([0]))
        for kept, perm, size, axis, keep in (
            (seen, [1, 0, 2], LEFT_OUTPUTS, 1, all_seen),
            (convolved, [2, 0, 1], KERNEL - 1, 2, all_convolved),
        ):
            if is_streaming:
                last = graph.op("Transpose", sliced(graph, kept, axis, -size), perm=perm)
                keep.append(graph.op("Unsqueeze", last, first))
    graph.op("MatMul", graph.normed(x, width), graph.drawn(width, JOINER_WIDTH), output="encoder_out")
    ends = {"encoder_out": (float, "N", "U", JOINER_WIDTH)}
    if not is_streaming:
        graph.op("Div", "x_lens", graph.constant(np.int64([4])), output="encoder_out_lens")
        lengths = {"x_lens": (int, "N")}
        graph.save(path, {"x": (float, "N", "T", 80)} | lengths, ends | {"encoder_out_lens": (int, "N")})
        return
    graph.op("Concat", *all_seen, axis=0, output="next_seen")
    graph.op("Concat", *all_convolved, axis=0, output="next_convolved")
    seen_shape, convolved_shape = (float, layers, LEFT_OUTPUTS, "N", width), (float, layers, KERNEL - 1, "N", width)
    graph.save(
        path,
        {"x": (float, "N", CHUNK_FRAMES + AHEAD_FRAMES, 80), "seen": seen_shape, "convolved": convolved_shape}
        | {"processed_lens": (int, "N")},
        ends | {"next_seen": seen_shape, "next_convolved": convolved_shape},
        **{"model_type": "conformer", "num_encoder_layers": layers, "encoder_dim": width, "pad_length": AHEAD_FRAMES},
        **{"T": CHUNK_FRAMES + AHEAD_FRAMES, "decode_chunk_len": CHUNK_FRAMES},
        **{"left_context": LEFT_OUTPUTS, "cnn_module_kernel": KERNEL},
    )


def whole_outputs(graph: Graph) -> str:
    """The frames that make whole outputs."""
    count = sliced(graph, graph.op("Shape", "x"), 0, 1, 2)
    four = graph.constant(np.int64([4]))
    end = graph.op("Mul", graph.op("Div", count, four), four)
    start, axis = (graph.constant(np.int64([value])) for value in (0, 1))
    return graph.op("Slice", "x", start, end, axis)


def save_rest(folder: Path) -> None:
    """The decoder, the joiner and the tokens, which both forms share."""
    graph = Graph(np.random.default_rng(1))
    embedded = graph.op("Gather", graph.drawn(VOCABULARY, JOINER_WIDTH), "y")
    graph.op("ReduceMean", embedded, output="decoder_out", axes=[1], keepdims=0)
    row = (float, "N", JOINER_WIDTH)
    graph.save(
        folder / "decoder.onnx", {"y": (int, "N", 2)}, {"decoder_out": row}, vocab_size=VOCABULARY, context_size=2
    )
    graph = Graph(np.random.default_rng(2))
    joined = graph.op("Tanh", graph.op("Add", "encoder_out", "decoder_out"))
    bias = np.zeros(VOCABULARY, np.float32)
    bias[0] = BLANK
    graph.op("Add", graph.linear(joined, JOINER_WIDTH, VOCABULARY), graph.constant(bias), output="logit")
    ends = {"logit": (float, "N", VOCABULARY)}
    graph.save(folder / "joiner.onnx", {"encoder_out": row, "decoder_out": row}, ends, joiner_dim=JOINER_WIDTH)
    tokens = ["<blk>", "<sos/eos>", *(f"▁word{number}" for number in range(2, VOCABULARY))]
    (folder / "tokens.txt").write_text("".join(f"{token} {number}\n" for number, token in enumerate(tokens)))


def engine_of(folder: Path, layers: int, width: int, *, is_streaming: bool) -> Engine:
    folder.mkdir()
    save_rest(folder)
    save_encoder(folder / "encoder.onnx", layers, width, is_streaming=is_streaming)
    model = {"path": str(folder), "kind": "transducer", "streaming": is_streaming}
    return load_engine(catalog(Settings(models={"sherpa/random": model})).spec("sherpa/random"), threads=1)


@dataclass
class Cost:
    """What it took to lead so many streams through a stretch together."""

    looks: int
    cpu_s: float
    tokens: int


def lead(engine: Engine, size: int, cadence: Cadence | None, streams: int = 1) -> Cost:
    """Lead streams through a stretch of `size` samples of noise; without a `cadence` only at its end."""
    noise = np.random.default_rng(0).normal(0, 0.05, (streams, size)).astype(np.float32)
    options, settled = Transcription(), [""] * streams
    ends, end = [], SURE_WINDOWS * WINDOW_SAMPLES
    while cadence and end <= min(size, TELLING_SAMPLES):
        ends.append(end)
        wait = cadence.next_samples(end, is_first=len(ends) == 1)
        end += -(-wait // WINDOW_SAMPLES) * WINDOW_SAMPLES
    begin_s, tokens = time.process_time(), 0
    for end, stage in [*((end, Stage.SPEAKING) for end in ends), (size, Stage.FINAL)]:
        jobs = [Decode(f"item_{n}", options, noise[n, :end], stage, 0, settled[n]) for n in range(streams)]
        for number, found in enumerate(engine.decode(jobs)):
            assert isinstance(found, Hypothesis)
            settled[number] += "".join(token.text for token in found.committed)
            tokens += len(found.committed)
    return Cost(len(ends) + 1, time.process_time() - begin_s, tokens)


def table_of(seconds: float, batches: Sequence[int], layers: int, width: int) -> Table:
    size = int(seconds * SAMPLE_RATE)
    with tempfile.TemporaryDirectory() as folder:
        streaming = engine_of(Path(folder) / "streaming", layers, width, is_streaming=True)
        offline = engine_of(Path(folder) / "offline", layers, width, is_streaming=False)
    for engine in (streaming, offline):
        lead(engine, 2 * SAMPLE_RATE, None)
    rows = [
        ("offline, once at the end", 1, lead(offline, size, None)),
        (f"offline, again and again (`{DEFAULT_DELAY}`)", 1, lead(offline, size, CADENCES[DEFAULT_DELAY])),
        ("offline, again and again (`minimal`)", 1, lead(offline, size, CADENCES["minimal"])),
        *((f"streaming, {count} at once", count, lead(streaming, size, STREAMING_CADENCE, count)) for count in batches),
    ]
    reference_s = next(cost.cpu_s for name, count, cost in rows if name.startswith("streaming"))
    table = Table(title=f"{seconds:g} s of speech, {layers} layers of {width}, CPU time of one thread")
    for column in ("", "looks", "ms per second of audio", "against streaming alone", "tokens a second"):
        table.add_column(column, justify="right" if column else "left")
    for name, count, cost in rows:
        each_s = cost.cpu_s / count
        figures = (
            f"{1000 * each_s / seconds:.1f}",
            f"{each_s / reference_s:.2f}",
            f"{cost.tokens / count / seconds:.1f}",
        )
        table.add_row(name, str(cost.looks), *figures)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20, help="length of the stretch")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 4, 16], help="how many streams at once")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=384)
    arguments = parser.parse_args()
    Console().print(table_of(arguments.seconds, arguments.streams, arguments.layers, arguments.width))


if __name__ == "__main__":
    main()
