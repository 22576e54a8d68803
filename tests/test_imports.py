"""The structure of the design, read from the syntax trees: who imports whom, who does what, how long things are."""

from __future__ import annotations

import ast
import graphlib
from functools import cache
from pathlib import Path

import pytest

import auricle

ROOT = Path(auricle.__file__).parent

LAYERS = ("audio", "protocol", "session", "engines", "transports", "http")
"""Imports go only from later to earlier ones."""

SERVER = ("scheduler", "worker", "recordings", "connection")

MAY_IMPORT: dict[str, set[str]] = {
    "audio": {"audio", "errors"},
    "protocol": {"protocol", "audio", "errors"},
    "session": {"session", "protocol", "audio", "errors"},
    # An engine's file. The interface and the registry have entries of their own.
    "engines": {"engines", "audio", "protocol.config", "protocol.languages"},
    "engines.base": {"audio", "errors", "protocol.config", "session.jobs", "session.words"},
    "engines.registry": {"engines", "protocol.config", "settings"},
    # A transport moves text; it knows neither the session nor the connection that uses it.
    "transports": {"transports", "audio", "errors", "protocol"},
    "http": {*LAYERS, *SERVER, "errors", "ids", "settings", "transcribe", "transcript_formats", ""},
    "settings": set(),
    "errors": set(),
    "ids": set(),
    "logs": set(),
    "client": {"audio", "errors"},
    "local_server": {"errors"},
    "microphone": {"audio", "errors"},
    "listen_command": {"audio", "client", "local_server", "microphone"},
    # A judge: it knows the wire and the recordings, and nothing of the server that it measures.
    "bench": {"errors"},
    "bench.corpus": {"audio", "errors"},
    "bench.options": {"audio"},
    "bench.server": {"errors"},
    "bench.session_run": {"bench.corpus", "client"},
    "bench.load": {"bench.corpus", "bench.session_run", "client"},
    "bench.scoring": set(),
    "bench.promises": {"bench.session_run"},
    "bench.latency": {"bench.corpus", "bench.scoring", "bench.session_run"},
    "bench.capacity": set(),
    "bench.report": {f"bench.{name}" for name in ("latency", "promises", "scoring", "server", "session_run")},
    "bench.tables": {"bench.latency", "bench.options", "bench.promises", "bench.report"},
    "bench.charts": {"bench.latency", "bench.options", "bench.report"},
    "bench.command": {"", "bench", "local_server"},
    "worker": {"engines"},
    "scheduler": {"engines", "protocol.config", "session.jobs", "worker"},
    "connection": {"audio", "errors", "protocol", "session", "scheduler", "transports"},
    "transcribe": {"audio", "engines", "ids", "protocol", "session"},
    "transcript_formats": {"protocol", "transcribe"},
    "models_command": {"engines"},
    "transcribe_command": {"audio.files", "errors", "recordings", "transcribe", "transcript_formats"},
    "recordings": {"audio", "engines", "errors", "protocol", "transcribe"},
    "explain": {"audio", "engines", "errors", "ids", "protocol", "session"},
}
"""For each package or module, the packages and modules it may import; `""` is the top package. `cli` may import all."""

PURE = ("audio", "protocol", "session")
IMPURE = {
    "aiortc",
    "asyncio",
    "concurrent",
    "datetime",
    "fastapi",
    "http",
    "httpx",
    "httpx2",
    "multiprocessing",
    "onnxruntime",
    "os",
    "random",
    "requests",
    "secrets",
    "select",
    "selectors",
    "sherpa_onnx",
    "signal",
    "socket",
    "ssl",
    "starlette",
    "subprocess",
    "threading",
    "time",
    "torch",
    "urllib",
    "uuid",
    "uvicorn",
    "websockets",
}
"""Loops, threads, sockets, clocks, chance, web frameworks and model runtimes."""

HEAVY = {
    "httpx2",
    "aioice",
    "aiortc",
    "av",
    "ctranslate2",
    "faster_whisper",
    "huggingface_hub",
    "moonshine_voice",
    "onnx",
    "onnxruntime",
    "sherpa_onnx",
    "sounddevice",
    "tokenizers",
    "torch",
    "transformers",
}
"""Libraries that are imported only where they are used, since they take long to load or may be missing."""


@cache
def modules() -> dict[str, ast.Module]:
    """Every module's tree, by its name without `auricle.`; the top package is `""`."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text())
    return found


def imports_of(tree: ast.AST) -> set[str]:
    """Full names of the modules and of the names taken from them, wherever in the file."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def own_imports(name: str) -> set[str]:
    """The modules of auricle that a module imports, by their short names."""
    found = set()
    for imported in imports_of(modules()[name]):
        if imported.split(".")[0] != "auricle":
            continue
        short = imported.removeprefix("auricle").removeprefix(".")
        while short not in modules():  # a name from a module
            short = short.rpartition(".")[0]
        found.add(short)
    return found - {name}


def rule_for(name: str) -> set[str] | None:
    """What a module may import: the rule of its own name, or of its package."""
    return MAY_IMPORT.get(name, MAY_IMPORT.get(name.split(".")[0]))


def is_allowed(imported: str, allowed: set[str]) -> bool:
    return imported in allowed or any(imported.startswith(f"{entry}.") for entry in allowed if entry)


NAMES = sorted(modules())


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("", "cli", "__main__")])
def test_a_module_imports_only_what_its_place_allows(name: str) -> None:
    allowed = rule_for(name)
    assert allowed is not None, f"give {name} its place in MAY_IMPORT"
    assert {imported for imported in own_imports(name) if not is_allowed(imported, allowed)} == set()


def test_layers_import_only_earlier_ones() -> None:
    for name in NAMES:
        layer = name.split(".")[0]
        if layer not in LAYERS:
            continue
        later = LAYERS[LAYERS.index(layer) + 1 :]
        assert {imported for imported in own_imports(name) if imported.split(".")[0] in later} == set(), name


def test_nothing_imports_the_command_line() -> None:
    assert [name for name in NAMES if "cli" in own_imports(name)] == ["__main__"]


@pytest.mark.parametrize("name", [name for name in NAMES if name.split(".")[0] in PURE])
def test_the_pure_layers_know_no_world(name: str) -> None:
    assert {imported.split(".")[0] for imported in imports_of(modules()[name])} & IMPURE == set()


@pytest.mark.parametrize(
    "name", [name for name in NAMES if name.split(".")[0] in LAYERS and name != "transports.webrtc"]
)
def test_heavy_libraries_are_imported_where_they_are_used(name: str) -> None:
    at_the_top = ast.Module([node for node in modules()[name].body if not _is_type_checking(node)], [])
    for node in ast.walk(at_the_top):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = []
    assert {imported.split(".")[0] for imported in imports_of(at_the_top)} & HEAVY == set()


def _is_type_checking(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def test_there_are_no_cycles() -> None:
    graph = {name: own_imports(name) - {""} for name in NAMES if name}
    graphlib.TopologicalSorter(graph).prepare()


def test_only_the_settings_read_the_environment() -> None:
    for name in NAMES:
        reads = [
            node
            for node in ast.walk(modules()[name])
            if (isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "environb"))
            or (isinstance(node, ast.ImportFrom) and node.module == "os" and "environ" in ast.unparse(node))
        ]
        assert not reads or name == "settings", name


def test_only_the_app_and_the_command_line_build_the_server() -> None:
    parts = {"Authenticator", "BatchScheduler", "Server", "ServerState", "Worker", "WorkerSpec"}
    for name in NAMES:
        called = {
            node.func.id
            for node in ast.walk(modules()[name])
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert not called & parts or name in ("http.app", "cli"), name


def test_every_module_says_what_it_is() -> None:
    assert [name for name in NAMES if name != "__main__" and not ast.get_docstring(modules()[name])] == []


def test_files_classes_and_functions_are_short() -> None:
    too_long = [path.name for path in ROOT.rglob("*.py") if len(path.read_text().splitlines()) > 500]
    limits = {ast.ClassDef: 350, ast.FunctionDef: 50, ast.AsyncFunctionDef: 50}
    for name in NAMES:
        for node in ast.walk(modules()[name]):
            limit = limits.get(type(node))
            if limit and node.end_lineno - node.lineno + 1 > limit:
                too_long.append(f"{name}.{node.name}")
    assert too_long == []


def test_the_rules_can_be_broken() -> None:
    """Reading the trees finds imports of every form."""
    source = "import time\nfrom os import environ\ndef f():\n    from auricle.session import session\n"
    assert imports_of(ast.parse(source)) == {"time", "os.environ", "auricle.session.session"}
    assert not is_allowed("session.session", MAY_IMPORT["engines.base"])
    assert not is_allowed("protocol.events", MAY_IMPORT["engines"])
    assert is_allowed("session.jobs", MAY_IMPORT["engines.base"])
