"""Networks in onnxruntime: how all engines open them, and what its failures become."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auricle.engines.base import EngineError


def open_network(
    model: Path | bytes, name: str, *, threads: int = 1, has_arena: bool = True, has_signed_weights: bool = False
) -> Any:
    """Open a model file, or a serialised one, on the CPU; `name` is what errors call it.

    Without an arena, memory is given back after each run, which costs small networks nothing. `has_signed_weights`: it
    multiplies by int8 weights. Raises EngineError: the file is missing or can't be read.
    """
    import onnxruntime

    if isinstance(model, Path) and not model.is_file():
        raise EngineError(f"The model file {model} is missing")
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.enable_cpu_mem_arena = has_arena
    settings.enable_mem_pattern = False  # shapes change from run to run, so remembered patterns never fit
    settings.log_severity_level = 3  # errors only: it warns of initializers that a file does not use
    # Idle threads must leave the cores to others.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if has_signed_weights and not multiplies_signed_exactly():
        settings.add_session_config_entry("session.x64quantprecision", "1")  # takes unsigned weights, at half the speed
    with engine_errors(name):
        return onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])


def ort_value(array: NDArray[Any]) -> Any:
    """An array as onnxruntime has it."""
    from onnxruntime import OrtValue

    return OrtValue.ortvalue_from_numpy(array)


@contextmanager
def engine_errors(name: str) -> Iterator[None]:
    """Turn failures of onnxruntime (out of memory, a damaged file) into EngineError; wrong inputs stay a bug."""
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidGraph, InvalidProtobuf, RuntimeException

    try:
        yield
    except (Fail, InvalidGraph, InvalidProtobuf, RuntimeException) as error:
        raise EngineError(f"The {name} model failed") from error


@cache
def multiplies_signed_exactly() -> bool:
    """Whether products of unsigned activations and signed weights add up; without VNNI, x86 processors clip them."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    rows, terms, columns, activation, weight = 4, 64, 32, 255, 127
    product = helper.make_node("MatMulInteger", ["activations", "weights"], ["sums"])
    activations = helper.make_tensor_value_info("activations", TensorProto.UINT8, [rows, terms])
    sums = helper.make_tensor_value_info("sums", TensorProto.INT32, [rows, columns])
    weights = numpy_helper.from_array(np.full((terms, columns), weight, np.int8), "weights")
    graph = helper.make_graph([product], "probe", [activations], [sums], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"activations": np.full((rows, terms), activation, np.uint8)})
    return bool(np.all(found == terms * activation * weight))
