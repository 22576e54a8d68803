"""The README's program is the example, and it works as it stands."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

from conftest import RunningServer

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "transcribe_wav.py"


def test_readme_shows_the_example_word_for_word():
    program = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    docstring, _, code = EXAMPLE.read_text().partition("\n\n")
    assert docstring.startswith('"""')
    assert code == program


def test_example_prints_the_opening_of_a_tale_of_two_cities(server: RunningServer, tmp_path: Path):
    program = tmp_path / "program.py"
    program.write_text(EXAMPLE.read_text().replace("http://127.0.0.1:8000/v1", server.base_url))
    package = Path(importlib.util.find_spec("moonshine_voice").submodule_search_locations[0])
    # It looks for the recording in the environment that `scripts/serve` makes.
    assets = tmp_path / ".venv" / "lib" / "moonshine_voice" / "assets"
    assets.mkdir(parents=True)
    shutil.copy(package / "assets" / "two_cities.wav", assets)
    result = subprocess.run(
        [sys.executable, str(program)], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    words = re.sub(r"[^a-z ]", "", result.stdout.lower())
    assert words.startswith("it was the best of times it was the worst of times")
