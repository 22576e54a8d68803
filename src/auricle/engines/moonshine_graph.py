"""Moonshine's two networks as graphs of our own, made from the weights in the files that its authors ship.

The files are straight exports: a decoder step runs 700 operators, half of its time goes into computing shapes, and the
int8 weights are stored unsigned, which onnxruntime multiplies at half the speed of signed ones. The same weights in the
graphs below, with fused attention, take half the time (`benchmarks/moonshine_graph.py` compares them). The encoder's
graph goes on to the keys and values that the decoder takes of the audio, so the decoder has one branch instead of two.

The decoder quantises the activations of each token by itself. The export does it for all tokens of a call together, so
there a draft that is checked in one call changes near-ties: 19 % of growing clips came out differently, 2.5 % here.

The architecture is that of https://github.com/moonshine-ai/moonshine: convolutions, a transformer encoder and decoder
with rotary positions over a part of each head. The sizes are read from the weights, so other sizes fit as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from auricle.engines.base import EngineError
from auricle.engines.ort_format import Array, Network, Node, read_network

if TYPE_CHECKING:
    from onnx import ModelProto

HEADS = 8
"""In all sizes of the model."""
MAX_POSITIONS = 4096
"""Audio frames or tokens in one utterance: 98 s of audio, and the rotary tables take 0.5 MB."""

Heads = Mapping[int, Sequence[int]]
"""Attention heads of the decoder, by layer."""

_OPSET, _IR_VERSION = 21, 10
_FUSED = "com.microsoft"
"""The domain of onnxruntime's fused operators."""
_EPSILON = 1e-5
_PROJECTIONS = ("MatMulIntegerToFloat", "DynamicQuantizeMatMul")


@dataclass(frozen=True, slots=True)
class Projection:
    """A matrix in 8 bits: its values are `scale * (weights - zero_point)`."""

    weights: Array
    """(inputs, outputs), int8."""
    scale: float
    zero_point: int
    bias: Array | None
    """(outputs,) float32."""


@dataclass(frozen=True, slots=True)
class Graphs:
    """The two networks, to be run by onnxruntime.

    The encoder takes `samples` (1, n) and gives `audio.{layer}.{key,value}` (1, HEADS, frames, head_size). The decoder
    takes these, `ids` (1, n), `position` (1,), which is how many tokens came before, and `past.{layer}.{key,value}`
    (1, HEADS, position, head_size); it gives `logits` (1, n, vocabulary) and `present.{layer}.{key,value}`.
    """

    encoder: ModelProto
    decoder: ModelProto
    layers: int
    """Of the decoder."""
    head_size: int


def cache_names(kind: str, layers: int) -> list[str]:
    """The names of the `audio`, `past` or `present` tensors."""
    return [f"{kind}.{layer}.{part}" for layer in range(layers) for part in ("key", "value")]


def build_graphs(folder: Path) -> Graphs:
    """Make both from `encoder_model.ort` and `decoder_model_merged.ort`.

    Raises EngineError if a file is missing, damaged or from another kind of model.
    """
    encoder = read_network(folder / "encoder_model.ort")
    decoder = read_network(folder / "decoder_model_merged.ort")
    try:
        _check_heads(decoder)
        of_encoder, of_decoder = _projections(encoder), _projections(decoder)
        layers = sum(name.endswith("/encoder_attn/k_proj") for name in of_decoder)
        size = of_decoder["layers.0/self_attn/q_proj"].weights.shape[0]
        head_size = size // HEADS
        audio = [
            of_decoder[f"layers.{layer}/encoder_attn/{part}_proj"] for layer in range(layers) for part in ("k", "v")
        ]
        return Graphs(
            _encoder(_Graph(head_size, has_row_scales=False), encoder, of_encoder, audio),
            _decoder(_Graph(head_size, has_row_scales=True), decoder, of_decoder, layers),
            layers,
            head_size,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise EngineError(f"The files in {folder} are not those of a Moonshine model: {error}") from error


def build_aligner(folder: Path, heads: Heads) -> ModelProto:
    """Make the network that says where some attention heads of the decoder look while it takes in a text.

    It takes `ids` (1, n) and `audio.{layer}.{key,value}` as the decoder does, of the layers up to the last of `heads`
    and without that one's values; it gives `weights` (1, heads, n, frames). Raises EngineError: as `build_graphs`, or
    there is no such head.
    """
    decoder = read_network(folder / "decoder_model_merged.ort")
    try:
        projections = _projections(decoder)
        if not all(0 <= head < HEADS for of_layer in heads.values() for head in of_layer):
            raise ValueError("no such attention head")
        head_size = projections["layers.0/self_attn/q_proj"].weights.shape[0] // HEADS
        return _aligner(_Graph(head_size, has_row_scales=True), decoder, projections, heads)
    except (KeyError, TypeError, ValueError) as error:
        raise EngineError(f"The files in {folder} don't allow for times of words: {error}") from error


def _check_heads(decoder: Network) -> None:
    """Raises ValueError: it has another number of heads, which the weights don't show but its caches do."""
    shape = decoder.shapes.get("past_key_values.0.decoder.key", ())
    if len(shape) > 1 and shape[1] != HEADS:  # (batch, heads, tokens, head size)
        raise ValueError(f"{shape[1]} attention heads, where all published models have {HEADS}")


def _projections(network: Network) -> dict[str, Projection]:
    """All matrices by their place, such as `layers.0/self_attn/q_proj`; the place stands in the name of the result."""
    found: dict[str, Projection] = {}
    for node in network.nodes:
        if node.operator in _PROJECTIONS:
            place = node.outputs[0].removeprefix("/model/decoder")
            place = place.removesuffix("/MatMul_output_0").removesuffix("/Add_output_0").strip("/")
            found[place] = _projection(network, node)
    return found


def _projection(network: Network, node: Node) -> Projection:
    parts = {
        part: network.constants[name]
        for part in ("quantized", "scale", "zero_point", "bias")
        for name in node.inputs
        if name in network.constants and (name.endswith(f"_{part}") or f".{part}" in name)
    }
    if parts["quantized"].dtype != np.uint8:
        raise ValueError(f"the weights of {node.outputs[0]} are not unsigned")
    # Shifting values and zero point alike changes nothing but the type.
    weights = (parts["quantized"].astype(np.int16) - 128).astype(np.int8)
    return Projection(weights, float(parts["scale"]), int(parts["zero_point"]) - 128, parts.get("bias"))


def _constant(network: Network, name: str, suffix: str = "") -> Array:
    """A constant by its name; exporting adds to many names something that begins with `_`. Raises KeyError."""
    for known, array in network.constants.items():
        if known == name or (known.startswith(f"{name}_") and known.endswith(suffix)):
            return array
    raise KeyError(name)


class _Graph:
    """A graph as it grows. Operators return the names of their results. Lives while a network is made."""

    def __init__(self, head_size: int, *, has_row_scales: bool) -> None:
        """`has_row_scales`: each frame or token is quantised by itself, not all of them together."""
        self.head_size = head_size
        self.has_row_scales = has_row_scales
        self._nodes: list[Any] = []
        self._constants: dict[str, Array] = {}
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []

    def input(self, name: str, shape: Sequence[str | int], *, is_integer: bool = False) -> str:
        from onnx import TensorProto, helper

        kind = TensorProto.INT64 if is_integer else TensorProto.FLOAT
        self._inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def output(self, name: str, shape: Sequence[str | int]) -> str:
        from onnx import TensorProto, helper

        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name

    def constant(self, name: str, array: Array) -> str:
        self._constants[name] = np.ascontiguousarray(array)
        return name

    def integers(self, *values: int) -> str:
        return self.constant("integers." + ".".join(map(str, values)), np.array(values, np.int64))

    def add(self, operator: str, *inputs: str, outputs: int | Sequence[str] = 1, domain: str = "", **given: Any) -> Any:
        """Append an operator; returns the name of its result, or a list if there are several."""
        from onnx import helper

        number = len(self._nodes)
        names = [f"{operator}.{number}.{index}" for index in range(outputs)] if isinstance(outputs, int) else outputs
        self._nodes.append(helper.make_node(operator, inputs, names, f"{operator}.{number}", domain=domain, **given))
        return names[0] if len(names) == 1 else names

    def norm(self, x: str, name: str, weight: Array) -> Any:
        return self.add("LayerNormalization", x, self.constant(name, weight), axis=-1, epsilon=_EPSILON)

    def project(self, x: str, name: str, *parts: Projection, output: str | None = None) -> Any:
        """Multiply by one matrix or several side by side, which reads and quantises `x` only once."""
        arrays = {
            "weights": np.concatenate([part.weights for part in parts], axis=1),
            "scale": np.concatenate([np.full(part.weights.shape[1], part.scale, np.float32) for part in parts]),
            "zero_point": np.concatenate([np.full(part.weights.shape[1], part.zero_point, np.int8) for part in parts]),
        }
        if len(parts) == 1:  # one of each for the whole matrix takes less time
            arrays |= {kind: arrays[kind][0] for kind in ("scale", "zero_point")}
        constants = [self.constant(f"{name}.{kind}", array) for kind, array in arrays.items()]
        bias = parts[0].bias
        biases = [] if bias is None else [self.constant(f"{name}.bias", bias)]
        outputs = [output] if output else 1
        if not self.has_row_scales:
            return self.add("DynamicQuantizeMatMul", x, *constants, *biases, domain=_FUSED, outputs=outputs)
        weights, scale, zero_point = constants
        quantised, largest = self._quantise_rows(x)
        x = self.add(
            "MatMulIntegerToFloat", quantised, weights, "row.scale", scale, "row.zero_point", zero_point, domain=_FUSED
        )
        x = self.add("Mul", x, largest, outputs=1 if biases else outputs)
        return self.add("Add", x, *biases, outputs=outputs) if biases else x

    def _quantise_rows(self, x: str) -> tuple[str, str]:
        """The rows of `x` as integers from 1 to 255 for -1 to 1, and the number to multiply each row with."""
        self.constant("row.scale", np.array(1 / 127, np.float32))
        self.constant("row.zero_point", np.array(128, np.uint8))
        largest = self.add("ReduceMax", self.add("Abs", x), self.integers(-1), keepdims=1)
        largest = self.add("Max", largest, self.constant("row.least", np.array(1e-9, np.float32)))
        return self.add("QuantizeLinear", self.add("Div", x, largest), "row.scale", "row.zero_point"), largest

    def rotary_tables(self, frequencies: Array) -> None:
        angles = np.arange(MAX_POSITIONS, dtype=np.float32)[:, np.newaxis] * frequencies.reshape(1, -1)
        self.constant("cos", np.cos(angles))
        self.constant("sin", np.sin(angles))

    def rotate(self, x: str, position: str) -> Any:
        size = 2 * self._constants["cos"].shape[1]
        return self.add(
            "RotaryEmbedding",
            *(x, position, "cos", "sin"),
            **{"interleaved": 1, "num_heads": HEADS, "rotary_embedding_dim": size, "domain": _FUSED},
        )

    def attend(self, *inputs: str, outputs: int | Sequence[str] = 1, is_causal: bool = False) -> Any:
        return self.add(
            "MultiHeadAttention",
            *inputs,
            outputs=outputs,
            **{"num_heads": HEADS, "scale": self.head_size**-0.5, "unidirectional": int(is_causal), "domain": _FUSED},
        )

    def finish(self) -> ModelProto:
        from onnx import helper, numpy_helper

        constants = [numpy_helper.from_array(array, name) for name, array in self._constants.items()]
        graph = helper.make_graph(self._nodes, "moonshine", self._inputs, self._outputs, constants)
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_FUSED, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)


def _encoder(
    graph: _Graph, network: Network, projections: Mapping[str, Projection], audio: Sequence[Projection]
) -> ModelProto:
    """`audio` makes the decoder's keys and values, layer after layer."""
    graph.rotary_tables(_constant(network, "onnx::Expand"))
    x = _front_end(graph, network, graph.input("samples", [1, "samples"]))
    for layer in range(sum(name.endswith("/self_attn/q_proj") for name in projections)):
        place = f"layers.{layer}"
        h = graph.norm(x, f"{place}.norm1", _constant(network, f"{place}.input_layernorm.weight"))
        q, k, v = _self_attention_inputs(graph, h, projections, place, graph.integers(0))
        h = graph.attend(q, k, v)
        x = graph.add("Add", x, graph.project(h, f"{place}.o", projections[f"{place}/self_attn/o_proj"]))
        h = graph.norm(x, f"{place}.norm2", _constant(network, f"{place}.post_attention_layernorm.weight"))
        h = graph.project(h, f"{place}.fc1", projections[f"{place}/mlp/fc1"])
        h = graph.project(graph.add("Gelu", h, domain=_FUSED), f"{place}.fc2", projections[f"{place}/mlp/fc2"])
        x = graph.add("Add", x, h)
    x = graph.norm(x, "norm", _constant(network, "layer_norm.weight"))
    x = graph.project(x, "audio", *audio)
    x = graph.add("Reshape", x, graph.integers(0, 0, len(audio), HEADS, graph.head_size))
    x = graph.add("Transpose", x, perm=[2, 0, 3, 1, 4])
    parts = graph.add("Split", x, outputs=len(audio), axis=0, num_outputs=len(audio))
    for part, name in zip(parts, cache_names("audio", len(audio) // 2), strict=True):
        graph.output(name, [1, HEADS, "frames", graph.head_size])
        graph.add("Squeeze", part, graph.integers(0), outputs=[name])
    return graph.finish()


def _front_end(graph: _Graph, network: Network, samples: str) -> Any:
    """Convolutions: one frame of (1, frames, size) per 384 samples."""

    def convolve(x: str, number: int, stride: int, *, has_bias: bool) -> Any:
        parts = {"weight": _constant(network, f"conv{number}.weight")}
        if has_bias:
            parts["bias"] = _constant(network, f"conv{number}.bias")
        constants = [graph.constant(f"conv{number}.{part}", array) for part, array in parts.items()]
        return graph.add("Conv", x, *constants, strides=[stride], kernel_shape=parts["weight"].shape[2:])

    scale, shift = _constant(network, "onnx::Mul"), _constant(network, "onnx::Add")
    x = graph.add("Tanh", convolve(graph.add("Unsqueeze", samples, graph.integers(1)), 1, 64, has_bias=False))
    scales = [graph.constant("groupnorm.scale", scale.ravel()), graph.constant("groupnorm.shift", shift.ravel())]
    x = graph.add("GroupNormalization", x, *scales, num_groups=1, epsilon=_EPSILON)
    for number, stride in ((2, 3), (3, 2)):
        x = graph.add("Gelu", convolve(x, number, stride, has_bias=True), domain=_FUSED)
    return graph.add("Transpose", x, perm=[0, 2, 1])


def _decoder(graph: _Graph, network: Network, projections: Mapping[str, Projection], layers: int) -> ModelProto:
    graph.rotary_tables(_constant(network, "onnx::Expand"))
    ids = graph.input("ids", [1, "tokens"], is_integer=True)
    position = graph.input("position", [1], is_integer=True)
    for kind, length in (("past", "position"), ("audio", "frames"), ("present", "length")):
        declare = graph.output if kind == "present" else graph.input
        for name in cache_names(kind, layers):
            declare(name, [1, HEADS, length, graph.head_size])
    x = _embedded(graph, network, ids)
    for layer in range(layers):
        place = f"layers.{layer}"
        past, present = ([f"{kind}.{layer}.{part}" for part in ("key", "value")] for kind in ("past", "present"))
        x = _look_back(graph, network, projections, place, x, position, past, present)
        query = _question(graph, network, projections, place, x)
        x = _listen_and_think(graph, network, projections, layer, x, query)
    x = graph.norm(x, "norm", _constant(network, "model.decoder.norm.weight"))
    logits = graph.project(x, "logits", projections["logits"], output="logits")
    graph.output(logits, [1, "tokens", projections["logits"].weights.shape[1]])
    return graph.finish()


def _aligner(graph: _Graph, network: Network, projections: Mapping[str, Projection], heads: Heads) -> ModelProto:
    """The decoder as far as the last of `heads`, by layer: where each looks in the audio as it takes in each token."""
    graph.rotary_tables(_constant(network, "onnx::Expand"))
    ids = graph.input("ids", [1, "tokens"], is_integer=True)
    last = max(heads)
    for name in cache_names("audio", last + 1)[:-1]:
        graph.input(name, [1, HEADS, "frames", graph.head_size])
    x = _embedded(graph, network, ids)
    weights = []
    for layer in range(last + 1):
        place = f"layers.{layer}"
        x = _look_back(graph, network, projections, place, x, graph.integers(0))
        query = _question(graph, network, projections, place, x)
        if layer in heads:
            weights.append(_weights(graph, query, f"audio.{layer}.key", heads[layer]))
        if layer != last:
            x = _listen_and_think(graph, network, projections, layer, x, query)
    graph.output("weights", [1, sum(map(len, heads.values())), "tokens", "frames"])
    graph.add("Concat", *weights, outputs=["weights"], axis=1)
    return graph.finish()


def _weights(graph: _Graph, query: str, key: str, heads: Sequence[int]) -> Any:
    """How some heads share their attention out over the frames, (1, heads, tokens, frames): 1 for each token."""
    chosen = graph.integers(*heads)
    q = graph.add("Reshape", query, graph.integers(0, 0, HEADS, graph.head_size))
    q = graph.add("Transpose", graph.add("Gather", q, chosen, axis=2), perm=[0, 2, 1, 3])
    k = graph.add("Transpose", graph.add("Gather", key, chosen, axis=1), perm=[0, 1, 3, 2])
    scale = graph.constant("attention.scale", np.array(graph.head_size**-0.5, np.float32))
    return graph.add("Softmax", graph.add("Mul", graph.add("MatMul", q, k), scale), axis=-1)


def _embedded(graph: _Graph, network: Network, ids: str) -> Any:
    x = graph.add("Gather", _embedding(graph, network), ids, axis=0)
    return graph.add("DequantizeLinear", x, "embedding.scale", "embedding.zero_point")


def _look_back(
    graph: _Graph,
    network: Network,
    projections: Mapping[str, Projection],
    place: str,
    x: str,
    position: str,
    past: Sequence[str] = (),
    present: Sequence[str] = (),
) -> Any:
    """A layer's attention to the tokens so far; `past` and `present` are the caches before and after, if it has any."""
    h = graph.norm(x, f"{place}.norm1", _constant(network, f"model.decoder.{place}.input_layernorm.weight"))
    q, k, v = _self_attention_inputs(graph, h, projections, place, position)
    if past:
        outputs = [f"{place}.attention", *present]
        h, *_ = graph.attend(q, k, v, "", "", "", *past, outputs=outputs, is_causal=True)
    else:
        h = graph.attend(q, k, v, is_causal=True)
    return graph.add("Add", x, graph.project(h, f"{place}.o", projections[f"{place}/self_attn/o_proj"]))


def _question(graph: _Graph, network: Network, projections: Mapping[str, Projection], place: str, x: str) -> Any:
    """What a layer asks of the audio."""
    h = graph.norm(x, f"{place}.norm2", _constant(network, f"model.decoder.{place}.post_attention_layernorm.weight"))
    return graph.project(h, f"{place}.audio_q", projections[f"{place}/encoder_attn/q_proj"])


def _listen_and_think(
    graph: _Graph, network: Network, projections: Mapping[str, Projection], layer: int, x: str, query: str
) -> Any:
    """The rest of a layer: its attention to the audio, and what it makes of it."""
    place = f"layers.{layer}"
    h = graph.attend(query, f"audio.{layer}.key", f"audio.{layer}.value")
    x = graph.add("Add", x, graph.project(h, f"{place}.audio_o", projections[f"{place}/encoder_attn/o_proj"]))
    h = graph.norm(x, f"{place}.norm3", _constant(network, f"model.decoder.{place}.final_layernorm.weight"))
    h = graph.project(h, f"{place}.fc1", projections[f"{place}/mlp/fc1"])
    h, gate = graph.add("Split", h, outputs=2, axis=-1, num_outputs=2)
    # With alpha 1 this is SiLU, x * sigmoid(x).
    h = graph.add("Mul", h, graph.add("QuickGelu", gate, domain=_FUSED, alpha=1.0))
    return graph.add("Add", x, graph.project(h, f"{place}.fc2", projections[f"{place}/mlp/fc2"]))


def _embedding(graph: _Graph, network: Network) -> str:
    """The table (vocabulary, size) of uint8, whose rows are turned into numbers as they are taken."""
    table, scale, zero_point = (
        _constant(network, "model.decoder.embed_tokens.weight", f"_{part}")
        for part in ("quantized", "scale", "zero_point")
    )
    graph.constant("embedding.scale", scale)
    graph.constant("embedding.zero_point", zero_point)
    return graph.constant("embedding", table)


def _self_attention_inputs(
    graph: _Graph, h: str, projections: Mapping[str, Projection], place: str, position: str
) -> tuple[str, str, str]:
    """Query, key and value of each frame or token, the first two turned to its position."""
    parts = [projections[f"{place}/self_attn/{part}_proj"] for part in ("q", "k", "v")]
    q, k, v = graph.add("Split", graph.project(h, f"{place}.qkv", *parts), outputs=3, axis=-1, num_outputs=3)
    return graph.rotate(q, position), graph.rotate(k, position), v
