"""Files in onnxruntime's own format (`.ort`, a flatbuffer): their constants and operators, as far as weights need them.

The format is described by the schema that onnxruntime ships with its tools.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auricle.engines.base import EngineError

Array = NDArray[Any]

_TYPES: Mapping[int, type[np.generic]] = {1: np.float32, 2: np.uint8, 3: np.int8, 6: np.int32, 7: np.int64}
"""By their number in ONNX; a constant of another type is left out."""
_TENSOR = 1
"""The number of a value's kind that is a tensor, in onnxruntime's schema."""
_SUBGRAPH = 5
"""The number in ONNX of an attribute that holds a graph, as the branches of `If` do."""


@dataclass(frozen=True, slots=True)
class Node:
    """One operator of a network, with the names of its tensors."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Network:
    """What a file holds, its branches together."""

    constants: Mapping[str, Array]
    nodes: tuple[Node, ...]
    shapes: Mapping[str, tuple[int, ...]]
    """Of the inputs; a dimension that is free is 0."""


def read_network(path: Path) -> Network:
    """Read a `.ort` file. Raises EngineError if it is missing or is none."""
    from onnxruntime.tools.ort_format_model.ort_flatbuffers_py.fbs.InferenceSession import InferenceSession

    if not path.is_file():
        raise EngineError(f"The model file {path} is missing")
    data = path.read_bytes()
    if not InferenceSession.InferenceSessionBufferHasIdentifier(data, 0):
        raise EngineError(f"The model file {path} is not in onnxruntime's format")
    constants: dict[str, Array] = {}
    nodes: list[Node] = []
    try:
        whole = InferenceSession.GetRootAs(data).Model().Graph()
        shapes = dict(_input_shapes(whole))
        for graph in _graphs(whole):
            constants.update(_constants(graph))
            nodes += map(_node, map(graph.Nodes, range(graph.NodesLength())))
    except (AttributeError, IndexError, OverflowError, RecursionError, TypeError, ValueError, struct.error) as error:
        # A flatbuffer is only a web of offsets: a damaged one leads anywhere.
        raise EngineError(f"The model file {path} is damaged") from error
    return Network(constants, tuple(nodes), shapes)


def _graphs(graph: Any) -> Iterator[Any]:
    """A graph and all that lie inside it."""
    yield graph
    for node in map(graph.Nodes, range(graph.NodesLength())):
        for attribute in map(node.Attributes, range(node.AttributesLength())):
            if attribute.Type() == _SUBGRAPH:
                yield from _graphs(attribute.G())


def _input_shapes(graph: Any) -> Iterator[tuple[str, tuple[int, ...]]]:
    from onnxruntime.tools.ort_format_model.ort_flatbuffers_py.fbs.TensorTypeAndShape import TensorTypeAndShape

    inputs = {graph.Inputs(index) for index in range(graph.InputsLength())}
    for value in map(graph.NodeArgs, range(graph.NodeArgsLength())):
        if value.Name() not in inputs or value.Type().ValueType() != _TENSOR:
            continue
        table = value.Type().Value()
        tensor = TensorTypeAndShape()
        tensor.Init(table.Bytes, table.Pos)
        shape = tensor.Shape()
        sizes = (shape.Dim(axis).Value().DimValue() for axis in range(shape.DimLength())) if shape else ()
        yield value.Name().decode(), tuple(sizes)


def _constants(graph: Any) -> Iterator[tuple[str, Array]]:
    for tensor in map(graph.Initializers, range(graph.InitializersLength())):
        dtype = _TYPES.get(tensor.DataType())
        if dtype is not None and tensor.RawDataLength():
            shape = [tensor.Dims(axis) for axis in range(tensor.DimsLength())]
            yield tensor.Name().decode(), np.frombuffer(tensor.RawDataAsNumpy(), dtype).reshape(shape)


def _node(node: Any) -> Node:
    inputs = map(node.Inputs, range(node.InputsLength()))
    outputs = map(node.Outputs, range(node.OutputsLength()))
    return Node(
        node.OpType().decode(), tuple(name.decode() for name in inputs), tuple(name.decode() for name in outputs)
    )
