"""`auricle models`: the list, and weights that are fetched from a hub and removed again."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny_moonshine
import tiny_whisper
from command_line import auricle, error_line, text_of
from conftest import RunningServer
from hub import serve_hub
from tiny_whisper import QUIET
from wire import COMPLETED, best_of_times, open_wire

from auricle.engines.moonshine import MoonshineModel, embedded_folder

MINI, REPOSITORY = "whisper/someone/mini", "someone/mini"
LOST_HUB = "http://127.0.0.1:9"
"""Port 9 (discard) has no server on any machine of today."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the hub has; not all of it is needed."""
    folder = tiny_whisper.build(tmp_path_factory.mktemp("hub"))
    (folder / "README.md").write_text("# Mini")
    return folder


def needed_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.name != "README.md")


def row(text: str, model: str) -> list[str]:
    """The columns of a model's line."""
    line = next(line for line in text.splitlines() if line.strip().startswith(model))
    return re.split(r"\s{2,}", line.strip())


def test_what_is_known_of_each_model_is_listed_in_80_columns(tmp_path: Path) -> None:
    copy, mini = str(embedded_folder()), str(tiny_whisper.build(tmp_path / "mini"))
    models = {
        "moonshine/copy": {"path": copy},
        "moonshine/lost": {"path": str(tmp_path / "lost")},
        "whisper/mini": {"path": mini, "device": "cuda", "languages": ["de", "fr"]},
        "whisper/small": {},
        "sherpa/some": {"path": copy, "kind": "moonshine_v2"},
        "upstream/far": {"base_url": "http://gpu-1/v1"},
    }
    text = text_of(auricle("models", AURICLE_MODELS=json.dumps(models), HF_HOME=str(tmp_path), COLUMNS="80"))
    assert text == text_of(
        auricle("models", "list", AURICLE_MODELS=json.dumps(models), HF_HOME=str(tmp_path), COLUMNS="80")
    )
    assert max(map(len, text.splitlines())) <= 80
    assert row(text, "moonshine/tiny-en") == ["moonshine/tiny-en (default)", "en", "cpu", "43.9 MB"]
    assert row(text, "moonshine/lost") == ["moonshine/lost", "en", "cpu", "not here"]
    assert row(text, "whisper/mini")[:3] == ["whisper/mini", "de, fr", "cuda"]
    assert row(text, "whisper/small") == ["whisper/small", "99 languages", "auto", "not here"]
    assert row(text, "sherpa/some") == ["sherpa/some", "any", "cpu", "43.9 MB"]
    assert row(text, "upstream/far") == ["upstream/far", "any", "elsewhere", "http://gpu-1/v1"]
    assert "auricle models pull" in text
    assert re.search(r"moonshine/tiny-en is also called gpt-4o-transcribe,", text)


def test_weights_are_pulled_used_and_removed(
    weights: Path, tmp_path: Path, server_with: Callable[..., RunningServer]
) -> None:
    models = json.dumps({MINI: {"device": "cpu"}})
    here = {"HF_HOME": str(tmp_path), "AURICLE_MODELS": models, "AURICLE_MODEL_WAIT_S": "60"}
    assert row(text_of(auricle("models", **here)), MINI)[-1] == "not here"
    server = server_with(**here)
    with open_wire(server.socket_url) as wire:
        wire.send_update(transcription={"model": MINI}, turn_detection=None)
        message = wire.until("error")[-1]["error"]["message"]
        assert f"The weights of {MINI} are not in {tmp_path}" in message
        command = re.search(r"Fetch them: auricle (models pull \S+)", message)
        assert command is not None
        with serve_hub(REPOSITORY, weights) as hub:
            pulled = text_of(auricle(*command[1].split(), HF_ENDPOINT=hub.url, **here))
            assert pulled.startswith(f"{MINI} is in {tmp_path}")
            assert sorted(hub.downloads) == sorted(file.name for file in weights.iterdir() if file.name != "README.md")
            hub.downloads.clear()
            assert text_of(auricle("models", "pull", MINI, HF_ENDPOINT=hub.url, **here)) == pulled
            assert hub.downloads == []
        # The server finds them without being started again.
        wire.update(transcription={"model": MINI}, turn_detection=None)
        wire.append(best_of_times())
        wire.commit()
        assert wire.until(COMPLETED)[-1]["transcript"] == QUIET.strip()
    assert re.fullmatch(r"[\d.]+ MB", row(text_of(auricle("models", **here)), MINI)[-1])
    freed = needed_bytes(weights) / 1e6
    assert text_of(auricle("models", "remove", MINI, **here)) == f"{MINI} is removed: {freed:.1f} MB are free again.\n"
    assert row(text_of(auricle("models", **here)), MINI)[-1] == "not here"
    assert f"no weights of {MINI} in {tmp_path}" in error_line(auricle("models", "remove", MINI, **here))


def test_moonshines_other_models_are_pulled_from_their_authors_and_removed_one_by_one(tmp_path: Path) -> None:
    """They all lie in one repository."""
    spanish, japanese = "moonshine/base-es", "moonshine/tiny-ja"
    models = json.dumps({spanish: {}, japanese: {}})
    here = {"HF_HOME": str(tmp_path / "cache"), "AURICLE_MODELS": models, "COLUMNS": "80"}
    for seed, name in enumerate(("base-es", "tiny-ja")):
        folder = tmp_path / "hub" / "model" / name / "quantized" / name
        tiny_moonshine.build(folder, seed=2 * seed)
        (folder / "more.ort").write_bytes(b"not needed")
        # Else the cache keeps what is the same only once.
        (folder / "tokenizer.bin").write_bytes((folder / "tokenizer.bin").read_bytes() + b"\x02" + name[-2:].encode())
    with serve_hub("moonshine-ai/moonshine-voice-assets", tmp_path / "hub") as hub:
        for name in (spanish, japanese):
            pulled = text_of(auricle("models", "pull", name, HF_ENDPOINT=hub.url, **here))
            assert pulled.strip().endswith(name.removeprefix("moonshine/"))
    assert sorted(hub.downloads) == sorted(2 * ["encoder_model.ort", "decoder_model_merged.ort", "tokenizer.bin"])
    listed = text_of(auricle("models", **here))
    assert row(listed, spanish)[1:3] == ["es", "cpu"]
    assert [row(listed, name)[-1] for name in (spanish, japanese)] == ["23.0 MB", "23.0 MB"]
    folder = Path(pulled.strip().partition(" is in ")[2])
    assert MoonshineModel(folder, language="ja").decode(np.zeros(16_000, np.float32)) is not None
    text_of(auricle("models", "remove", spanish, **here))
    listed = text_of(auricle("models", **here))
    assert [row(listed, name)[-1] for name in (spanish, japanese)] == ["not here", "23.0 MB"]
    assert (folder / "encoder_model.ort").is_file()
    assert f"no weights of {spanish}" in error_line(auricle("models", "remove", spanish, **here))
    text_of(auricle("models", "remove", japanese, **here))
    assert not folder.exists()


def test_a_pull_shows_how_far_it_has_come(weights: Path, tmp_path: Path) -> None:
    """On a terminal of 80 columns, in no line more than fits."""
    with serve_hub(REPOSITORY, weights) as hub:
        main, side = pty.openpty()
        environment = os.environ | {"HF_HOME": str(tmp_path), "HF_ENDPOINT": hub.url, "COLUMNS": "80", "TERM": "xterm"}
        command = [sys.executable, "-m", "auricle", "models", "pull", MINI]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=side, env=environment)
        os.close(side)
        shown = b""
        try:
            while chunk := os.read(main, 65_536):
                shown += chunk
        except OSError:  # as Linux tells the end of a terminal
            pass
        assert process.wait(30) == 0
    assert process.stdout is not None
    process.stdout.close()
    os.close(main)
    text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", shown.decode())
    lines = [line for line in re.split(r"[\r\n]+", text) if line.strip()]
    assert max(map(len, lines)) <= 80
    size = f"{needed_bytes(weights) / 1e6:.1f}"
    assert any(line.startswith(f"Fetching {MINI}") and f"{size}/{size} MB" in line for line in lines), lines


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("pull", MINI), rf"{MINI} can't be fetched from the Hugging Face hub \({REPOSITORY}\)"),
        (("pull", "whisper/someone/nothing"), "whisper/someone/nothing can't be fetched"),
        (("pull", "whisper/own"), "whisper/own has a folder of its own, .*nothing to fetch"),
        (("remove", "whisper/own"), "whisper/own has a folder of its own, .*yours to remove"),
        (("remove", "whisper/small"), "no weights of whisper/small in "),
        (("pull", "moonshine/tiny-en"), "nothing to fetch for moonshine/tiny-en"),
        (("remove", "moonshine/tiny-en"), "nothing to remove for moonshine/tiny-en"),
        (("remove", "nope"), "no model 'nope'"),
        (("pull", ""), "name is empty"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(
    weights: Path, tmp_path: Path, arguments: tuple[str, str], told: str
) -> None:
    own = tiny_whisper.build(tmp_path / "own")
    with serve_hub("someone/else", weights) as hub:
        endpoint = LOST_HUB if arguments[1] == MINI else hub.url
        models = json.dumps({"whisper/own": {"path": str(own)}})
        result = auricle("models", *arguments, HF_HOME=str(tmp_path), HF_ENDPOINT=endpoint, AURICLE_MODELS=models)
    assert re.search(told, error_line(result))
    assert (own / "model.bin").is_file()


def test_ctrl_c_ends_a_pull_at_once_and_what_came_is_not_taken_for_all(weights: Path, tmp_path: Path) -> None:
    here = {"HF_HOME": str(tmp_path), "AURICLE_MODELS": json.dumps({MINI: {}})}
    with serve_hub(REPOSITORY, weights) as hub:
        hub.held = "model.bin"
        command = [sys.executable, "-m", "auricle", "models", "pull", MINI]
        process = subprocess.Popen(command, env=os.environ | here | {"HF_ENDPOINT": hub.url}, text=True)
        try:
            assert hub.is_held.wait(30)
            process.send_signal(signal.SIGINT)
            assert process.wait(5) == 130
        finally:
            process.kill()
            process.wait()
            hub.held = ""
    assert row(text_of(auricle("models", **here)), MINI)[-1] == "not here"


def test_a_repository_of_another_kind_is_neither_fetched_nor_removed(tmp_path: Path) -> None:
    """It may be another program's, and large."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text("{}")
    here = {"HF_HOME": str(tmp_path / "home"), "AURICLE_MODELS": json.dumps({MINI: {}})}
    with serve_hub(REPOSITORY, other) as hub:
        line = error_line(auricle("models", "pull", MINI, HF_ENDPOINT=hub.url, **here))
    assert line == f"{REPOSITORY} is no such model as {MINI} needs: it has no model.bin."
    assert row(text_of(auricle("models", **here)), MINI)[-1] == "not here"
    (snapshot,) = (tmp_path / "home").glob("hub/models--*/snapshots/*")
    (snapshot / "pytorch_model.bin").write_bytes(b"theirs")
    assert f"something else than {MINI}" in error_line(auricle("models", "remove", MINI, **here))
    assert (snapshot / "pytorch_model.bin").is_file()
