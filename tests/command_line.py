"""The command line as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def auricle(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AURICLE_")}
    return subprocess.run(
        [sys.executable, "-m", "auricle", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=30,
        env=environment | {"COLUMNS": "200"} | variables,
    )


def error_line(result: subprocess.CompletedProcess[str]) -> str:
    """The one line of an error. Fails if there is more than it, or no failure."""
    assert result.returncode not in (0, None)
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("Error: ")
    return lines[0].removeprefix("Error: ")


def text_of(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 0, result.stderr
    return result.stdout
