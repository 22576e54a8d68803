"""A Moonshine model of other sizes, in the format of the files that its authors ship, and its sums done plainly.

The weights are random. The files hold the constants and operators that weights are read from, under the names of the
authors' export; they can't be run. `Reference` computes what the model is by the paper (arXiv 2410.15608) in numpy, in
32 bits throughout, so it differs from networks that quantise by their rounding alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from auricle.audio.formats import Samples

Array = NDArray[Any]

HEADS = 8
STRIDES = (64, 3, 2)


@dataclass
class Sizes:
    """Of a model; these are those of no published one, but for the width of `base`."""

    width: int = 416
    encoder_layers: int = 2
    decoder_layers: int = 3
    inner: int = 600
    vocabulary: int = 60
    rotary_pairs: int = 16
    heads: int = HEADS


@dataclass
class Half:
    """The constants and matrices of one file, as numbers and as the file has them."""

    random: np.random.Generator
    values: dict[str, Array] = field(default_factory=dict)
    """Of constants by their names, of matrices (inputs, outputs) by their places, of biases by `place.bias`."""
    constants: dict[str, Array] = field(default_factory=dict)
    nodes: list[Any] = field(default_factory=list)
    inputs: list[Any] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)

    def constant(self, name: str, value: Array) -> None:
        """One that stands alone; something must use it, else it is left out of the file."""
        self.values[name] = value
        self._keep(f"{name}_7", value.astype(np.float32))

    def _keep(self, name: str, array: Array) -> None:
        self.constants[name] = array
        self.nodes.append(helper.make_node("Identity", [name], [f"keep/{name}"]))
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        self.outputs.append(helper.make_tensor_value_info(f"keep/{name}", kind, array.shape))

    def norm(self, name: str, width: int) -> None:
        self.constant(name, self.random.normal(1, 0.2, width))

    def quantised(self, name: str, shape: tuple[int, int], spread: float) -> tuple[Array, dict[str, Array]]:
        """A matrix of 8 bits: its values, and the three constants that it is in the file."""
        numbers = np.clip(self.random.normal(120, 30, shape), 0, 255).astype(np.uint8)
        scale, zero_point = np.float32(spread / 30), np.uint8(120)
        parts = {"quantized": numbers, "scale": np.array(scale), "zero_point": np.array(zero_point)}
        return scale * (numbers.astype(np.float32) - 120), {f"{name}_{part}": array for part, array in parts.items()}

    def matrix(self, place: str, inputs: int, outputs: int, *, prefix: str = "/", has_bias: bool = False) -> None:
        result = place if place == "logits" else f"{prefix}{place}/{'Add' if has_bias else 'MatMul'}_output_0"
        # Attention that is nearly even would hide where it looks.
        spread = inputs**-0.5 * (2.5 if place.endswith(("q_proj", "k_proj")) else 1)
        self.values[place], parts = self.quantised(f"onnx::MatMul_{place}", (inputs, outputs), spread)
        names = list(parts)
        if has_bias:
            bias = self.random.normal(0, 0.1, outputs).astype(np.float32)
            self.values[f"{place}.bias"] = parts[f"{place}.bias"] = bias
            names.append(f"{place}.bias")
        self.constants |= parts
        self.inputs.append(helper.make_tensor_value_info(f"in/{place}", TensorProto.FLOAT, [1, inputs]))
        self.outputs.append(helper.make_tensor_value_info(result, TensorProto.FLOAT, [1, outputs]))
        node = helper.make_node("DynamicQuantizeMatMul", [f"in/{place}", *names], [result], domain="com.microsoft")
        self.nodes.append(node)

    def cache_input(self, name: str, heads: int, head_size: int) -> None:
        shape = ["batch", heads, "length", head_size]
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        self.outputs.append(helper.make_tensor_value_info(f"keep/{name}", TensorProto.FLOAT, shape))
        self.nodes.append(helper.make_node("Identity", [name], [f"keep/{name}"]))

    def save(self, file: Path) -> None:
        initializers = [numpy_helper.from_array(array, name) for name, array in self.constants.items()]
        graph = helper.make_graph(self.nodes, "half", self.inputs, self.outputs, initializers)
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.optimized_model_filepath = str(file)
        options.add_session_config_entry("session.save_model_format", "ORT")
        onnxruntime.InferenceSession(model.SerializeToString(), options)


def build(folder: Path, sizes: Sizes | None = None, seed: int = 0) -> Reference:
    """Write the model's three files. Returns what it is, to be computed."""
    sizes = sizes or Sizes()
    folder.mkdir(parents=True, exist_ok=True)
    encoder, decoder = (Half(np.random.default_rng(seed + number)) for number in range(2))
    _fill_encoder(encoder, sizes)
    _fill_decoder(decoder, sizes)
    encoder.save(folder / "encoder_model.ort")
    decoder.save(folder / "decoder_model_merged.ort")
    pieces = [b"<unk>", b"<s>", b"</s>", *(f"▁w{number}".encode() for number in range(sizes.vocabulary - 3))]
    (folder / "tokenizer.bin").write_bytes(b"".join(bytes([len(piece)]) + piece for piece in pieces))
    return Reference(sizes, encoder.values, decoder.values)


def _fill_encoder(half: Half, sizes: Sizes) -> None:
    width, random = sizes.width, half.random
    half.constant("onnx::Expand", _frequencies(sizes))
    half.constant("conv1.weight", random.normal(0, 0.5, (width, 1, 127)))
    half.constant("onnx::Mul", random.normal(1, 0.1, (width, 1)))
    half.constant("onnx::Add", random.normal(0, 0.1, (width, 1)))
    for number, (outputs, inputs, kernel) in ((2, (2 * width, width, 7)), (3, (width, 2 * width, 3))):
        half.constant(f"conv{number}.weight", random.normal(0, (inputs * kernel) ** -0.5, (outputs, inputs, kernel)))
        half.constant(f"conv{number}.bias", random.normal(0, 0.1, outputs))
    for layer in range(sizes.encoder_layers):
        place = f"layers.{layer}"
        half.norm(f"{place}.input_layernorm.weight", width)
        half.norm(f"{place}.post_attention_layernorm.weight", width)
        for part in "qkvo":
            half.matrix(f"{place}/self_attn/{part}_proj", width, width)
        half.matrix(f"{place}/mlp/fc1", width, sizes.inner, has_bias=True)
        half.matrix(f"{place}/mlp/fc2", sizes.inner, width, has_bias=True)
    half.norm("layer_norm.weight", width)


def _fill_decoder(half: Half, sizes: Sizes) -> None:
    width, prefix = sizes.width, "/model/decoder/"
    half.constant("onnx::Expand", _frequencies(sizes))
    table, parts = half.quantised("model.decoder.embed_tokens.weight", (sizes.vocabulary, width), 1.0)
    half.values["embedding"] = table
    for name, array in parts.items():
        half._keep(name, array)
    for layer in range(sizes.decoder_layers):
        place = f"layers.{layer}"
        for norm in ("input", "post_attention", "final"):
            half.norm(f"model.decoder.{place}.{norm}_layernorm.weight", width)
        for attention in ("self_attn", "encoder_attn"):
            for part in "qkvo":
                half.matrix(f"{place}/{attention}/{part}_proj", width, width, prefix=prefix)
        half.matrix(f"{place}/mlp/fc1", width, 2 * sizes.inner, prefix=prefix, has_bias=True)
        half.matrix(f"{place}/mlp/fc2", sizes.inner, width, prefix=prefix, has_bias=True)
        for part in ("key", "value"):
            half.cache_input(f"past_key_values.{layer}.decoder.{part}", sizes.heads, width // sizes.heads)
    half.norm("model.decoder.norm.weight", width)
    half.matrix("logits", width, sizes.vocabulary)


def _frequencies(sizes: Sizes) -> Array:
    return 10_000.0 ** -(np.arange(sizes.rotary_pairs) / sizes.rotary_pairs).reshape(1, -1, 1)


@dataclass
class Reference:
    """The model's sums, in numpy."""

    sizes: Sizes
    encoder: dict[str, Array]
    decoder: dict[str, Array]

    def logits(self, samples: Samples, ids: Sequence[int]) -> Array:
        """Of the token after each of `ids`: (len(ids), vocabulary)."""
        audio, values = self._encode(samples.astype(np.float64)), self.decoder
        x = values["embedding"][list(ids)].astype(np.float64)
        for layer in range(self.sizes.decoder_layers):
            place = f"layers.{layer}"
            norms = [
                values[f"model.decoder.{place}.{name}_layernorm.weight"]
                for name in ("input", "post_attention", "final")
            ]
            h = _norm(x, norms[0])
            x = x + self._attend(values, f"{place}/self_attn", h, h, is_turned=True, is_causal=True)
            x = x + self._attend(values, f"{place}/encoder_attn", _norm(x, norms[1]), audio)
            h, gate = np.split(_project(values, f"{place}/mlp/fc1", _norm(x, norms[2])), 2, axis=-1)
            x = x + _project(values, f"{place}/mlp/fc2", h * gate / (1 + np.exp(-gate)))
        return _project(values, "logits", _norm(x, values["model.decoder.norm.weight"]))

    def _encode(self, samples: Array) -> Array:
        values = self.encoder
        x = np.tanh(_convolve(samples[np.newaxis], values["conv1.weight"], STRIDES[0]))
        x = (x - x.mean()) / np.sqrt(x.var() + 1e-5) * values["onnx::Mul"] + values["onnx::Add"]
        for number in (2, 3):
            x = _convolve(x, values[f"conv{number}.weight"], STRIDES[number - 1])
            x = _gelu(x + values[f"conv{number}.bias"][:, np.newaxis])
        x = x.T
        for layer in range(self.sizes.encoder_layers):
            place = f"layers.{layer}"
            h = _norm(x, values[f"{place}.input_layernorm.weight"])
            x = x + self._attend(values, f"{place}/self_attn", h, h, is_turned=True)
            h = _norm(x, values[f"{place}.post_attention_layernorm.weight"])
            x = x + _project(values, f"{place}/mlp/fc2", _gelu(_project(values, f"{place}/mlp/fc1", h)))
        return _norm(x, values["layer_norm.weight"])

    def _attend(
        self,
        values: dict[str, Array],
        place: str,
        queries: Array,
        others: Array,
        *,
        is_turned: bool = False,
        is_causal: bool = False,
    ) -> Array:
        q, k, v = (
            _project(values, f"{place}/{part}_proj", x).reshape(len(x), self.sizes.heads, -1).transpose(1, 0, 2)
            for part, x in (("q", queries), ("k", others), ("v", others))
        )
        if is_turned:
            q, k = self._turned(q), self._turned(k)
        scores = q @ k.transpose(0, 2, 1) * q.shape[-1] ** -0.5
        if is_causal:
            scores = np.where(np.tri(len(queries), dtype=bool), scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        heads = weights / weights.sum(-1, keepdims=True) @ v
        return _project(values, f"{place}/o_proj", heads.transpose(1, 0, 2).reshape(len(queries), -1))

    def _turned(self, x: Array) -> Array:
        """Pairs of neighbours in the first part of each head are turned by an angle that grows with the position."""
        angles = np.arange(x.shape[1])[:, np.newaxis] * _frequencies(self.sizes).ravel()
        cos, sin = np.cos(angles), np.sin(angles)
        size = 2 * self.sizes.rotary_pairs
        even, odd = x[..., 0:size:2], x[..., 1:size:2]
        turned = np.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1).reshape(*x.shape[:2], size)
        return np.concatenate([turned, x[..., size:]], axis=-1)


def _norm(x: Array, weight: Array) -> Array:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * weight


def _project(values: dict[str, Array], place: str, x: Array) -> Array:
    return x @ values[place] + values.get(f"{place}.bias", 0.0)


def _convolve(x: Array, weight: Array, stride: int) -> Array:
    """`x` (inputs, n), `weight` (outputs, inputs, kernel): (outputs, frames)."""
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2], axis=1)[:, ::stride]
    return np.einsum("itk,oik->ot", windows, weight, optimize=True)


def _gelu(x: Array) -> Array:
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
