"""The command line as a process of its own: what it prints, where, and with which exit code."""

from __future__ import annotations

import json
import re
import socket
import ssl
import threading
import wave
from pathlib import Path

import httpx
import numpy as np
import pytest
import trustme
from clips import silence
from command_line import auricle, error_line, text_of
from conftest import RunningServer
from websockets.sync.server import ServerConnection, serve
from wire import BEST_OF_TIMES, best_of_times, open_wire
from words import word_error_rate

from auricle import __version__
from auricle.audio.formats import SAMPLE_RATE, Samples
from auricle.engines.moonshine import embedded_folder

MODEL = "moonshine/tiny-en"
NOBODY = "http://127.0.0.1:9/v1"
"""Port 9 (discard) has no server on any machine of today."""


def write_wav(path: Path, samples: Samples) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return path


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One recording with speech, whose name is not made for shells, and one without."""
    folder = tmp_path_factory.mktemp("recordings")
    return (
        write_wav(folder / "a tale [of] two.wav", best_of_times()),
        write_wav(folder / "silence.wav", silence(2.0)),
    )


# In general


def test_help_lists_the_commands():
    result = auricle("--help")
    assert result.returncode == 0
    for command in ("serve", "transcribe", "models", "key"):
        assert re.search(rf"\b{command}\b", result.stdout)


def test_version_is_the_packages():
    assert text_of(auricle("--version")) == f"auricle {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(["nonsense"], "nonsense"), (["serve", "--port", "x"], "--port"), (["transcribe"], "recordings")],
)
def test_wrong_usage_is_one_line(arguments: list[str], told: str):
    result = auricle(*arguments)
    assert result.returncode == 2
    assert re.fullmatch(r"Error: .+\n", result.stderr)
    assert told in result.stderr


def test_no_command_shows_the_help():
    result = auricle()
    assert result.returncode == 0
    assert "transcribe" in result.stdout


# serve


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--port", "70000"], "port: .*65535"),
        (["--host", "0.0.0.0"], "0\\.0\\.0\\.0 .*AURICLE_API_KEYS.*--no-auth"),
        (["--api-keys-file", "nowhere.txt"], "keys.*nowhere\\.txt"),
        (["--model", "nope"], f"nope.*{MODEL}"),
        (["--tls-cert", __file__], "tls_cert and tls_key"),
        (["--tls", "auto"], "tls: .*self-signed"),
        (["--tls", "self-signed", "--tls-cert", __file__, "--tls-key", __file__], "tls and tls_cert"),
        (["--allowed-origins", "app.example.com"], "allowed_origins: 'app.example.com'.*https://"),
        (["--tls-cert", "nowhere.pem", "--tls-key", "nowhere.pem"], "tls_cert: .*file"),
        (["--log-level", "loud"], "log_level: .*warning"),
        (["--config", "nowhere.toml"], "nowhere\\.toml"),
        (["--host", "no.such.host.invalid", "--no-auth"], "no\\.such\\.host\\.invalid"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_server_with_a_wrong_setting_does_not_start(arguments: list[str], told: str):
    assert re.search(told, error_line(auricle("serve", "--port", "0", *arguments)))


def test_a_variable_that_is_wrong_is_told_by_its_setting():
    assert re.search("port: .*integer", error_line(auricle("serve", AURICLE_PORT="many")))


@pytest.mark.parametrize(("content", "told"), [("port = 0\nhots = 'x'\n", "hots"), ("port = = 0", "line 1")])
def test_a_config_file_with_a_mistake_is_told(tmp_path: Path, content: str, told: str):
    config = tmp_path / "auricle.toml"
    config.write_text(content)
    assert told in error_line(auricle("serve", "--config", config))


def test_a_port_in_use_is_told():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = error_line(auricle("serve", "--port", str(port)))
    assert str(port) in line
    assert "in use" in line


def test_flags_come_before_variables_and_variables_before_the_file(server_with, tmp_path: Path):
    config = tmp_path / "auricle.toml"
    config.write_text('api_keys = ["of-the-file"]\nlog_level = "error"\nmax_sessions = 0\n')
    server = server_with(
        "--config", str(config), "--api-keys", "of-the-flag", AURICLE_API_KEYS="of-a-variable", AURICLE_MAX_SESSIONS="7"
    )
    for key, status in {"of-the-file": 401, "of-a-variable": 401, "of-the-flag": 200}.items():
        assert httpx.get(server.base_url + "/models", headers={"Authorization": f"Bearer {key}"}).status_code == status


def test_keys_can_stand_in_a_file(server_with, tmp_path: Path):
    keys = [text_of(auricle("key")).strip() for _ in range(2)]
    assert keys[0] != keys[1]
    assert all(re.fullmatch(r"sk-auricle-[\w-]{40,}", key) for key in keys)
    file = tmp_path / "keys.txt"
    file.write_text(f"# ours\n\n{keys[0]}\n  {keys[1]}  \n")
    server = server_with("--host", "0.0.0.0", "--api-keys-file", str(file))
    url = server.base_url.replace("0.0.0.0", "127.0.0.1") + "/models"
    for key in keys:
        assert httpx.get(url, headers={"Authorization": f"Bearer {key}"}).status_code == 200
    for key in ("# ours", "wrong"):
        assert httpx.get(url, headers={"Authorization": f"Bearer {key}"}).status_code == 401


def test_a_started_server_says_what_to_do_next(server: RunningServer):
    said = "\n".join(server.output)
    assert server.base_url in said
    assert f'OpenAI(base_url="{server.base_url}"' in said
    assert server.root_url + "/docs" in said
    assert f"in a browser: {server.root_url}/\n" in said


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls_server(server_with, authority: trustme.CA, tmp_path: Path) -> RunningServer:
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    for pem in certificate.cert_chain_pems:
        pem.write_to_path(tmp_path / "cert.pem", append=True)
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    return server_with("--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem"))


def test_with_a_certificate_everything_is_encrypted(
    tls_server: RunningServer, authority: trustme.CA, recordings: tuple[Path, Path], tmp_path: Path
):
    assert tls_server.base_url.startswith("https://127.0.0.1:")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    assert httpx.get(tls_server.root_url + "/health", verify=context).json()["status"] == "ok"
    with pytest.raises(httpx.TransportError):
        httpx.get(tls_server.root_url.replace("https", "http") + "/health")
    with open_wire(tls_server.socket_url, ssl=context) as wire:
        wire.update(transcription={"model": MODEL}, turn_detection=None)

    result = auricle(
        "transcribe", "--realtime", tls_server.base_url, recordings[0], SSL_CERT_FILE=str(tmp_path / "authority.pem")
    )
    assert word_error_rate(BEST_OF_TIMES, text_of(result)) < 0.2
    distrusted = error_line(auricle("transcribe", "--realtime", tls_server.base_url, recordings[0]))
    assert "certificate" in distrusted.lower()


# transcribe


def test_a_recording_is_turned_into_one_line_of_text(recordings: tuple[Path, Path]):
    text = text_of(auricle("transcribe", recordings[0]))
    assert text.count("\n") == 1
    assert word_error_rate(BEST_OF_TIMES, text) < 0.2


def test_several_recordings_come_under_their_names(recordings: tuple[Path, Path]):
    lines = text_of(auricle("transcribe", *recordings)).splitlines()
    assert lines[0] == f"{recordings[0]}:"
    assert word_error_rate(BEST_OF_TIMES, lines[1]) < 0.2
    assert lines[2:] == [f"{recordings[1]}:", ""]


@pytest.mark.parametrize("where", ["here", "through a server"])
def test_a_file_that_has_no_audio_is_told(server: RunningServer, tmp_path: Path, where: str):
    file = tmp_path / "text.txt"
    file.write_text("Not audio.\n" * 50)
    flags = ["--realtime", server.base_url] if where == "through a server" else []
    assert "text.txt" in error_line(auricle("transcribe", *flags, file))


def test_recordings_before_the_one_that_fails_are_printed(recordings: tuple[Path, Path]):
    result = auricle("transcribe", recordings[0], "nowhere.wav")
    assert result.returncode == 1
    assert word_error_rate(BEST_OF_TIMES, result.stdout.splitlines()[1]) < 0.2
    assert re.search("^Error: .*nowhere\\.wav.*No such file", result.stderr, re.MULTILINE)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--model", "nope"], f"'nope'.*{MODEL}"),
        (["--language", "de"], "'de'.*'en'"),
        (["--realtime", NOBODY], "No connection to ws://127\\.0\\.0\\.1:9/"),
        (["--realtime", "nonsense"], "nonsense"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_recording_that_cannot_be_transcribed_is_told(recordings: tuple[Path, Path], flags: list[str], told: str):
    assert re.search(told, error_line(auricle("transcribe", *flags, recordings[0])))


def test_recordings_can_be_streamed_through_a_server(server: RunningServer, recordings: tuple[Path, Path]):
    lines = text_of(auricle("transcribe", "--realtime", server.base_url, *recordings)).splitlines()
    assert lines[0] == f"{recordings[0]}:"
    assert word_error_rate(BEST_OF_TIMES, lines[1]) < 0.2
    assert lines[2:] == [f"{recordings[1]}:", ""]


def test_an_address_that_is_no_api_is_told(server: RunningServer, recordings: tuple[Path, Path]):
    line = error_line(auricle("transcribe", "--realtime", server.root_url, recordings[0]))
    assert "No connection to" in line


def test_a_server_that_refuses_the_key_is_told(server_with, recordings: tuple[Path, Path]):
    server = server_with("--api-keys", "right-key")
    long = write_wav(recordings[0].parent / "long.wav", np.tile(best_of_times(), 4))
    for flags in ([], ["--api-key", "wrong-key"]):
        line = error_line(auricle("transcribe", "--realtime", server.base_url, *flags, long))
        assert re.search("Incorrect API key|Missing bearer", line)
    result = auricle("transcribe", "--realtime", server.base_url, recordings[0], AURICLE_API_KEY="right-key")
    assert word_error_rate(BEST_OF_TIMES, text_of(result)) < 0.2


def test_a_server_that_goes_away_in_the_middle_is_told(recordings: tuple[Path, Path]):
    """Never half a transcript that looks like a whole one."""

    def say_goodbye(connection: ServerConnection) -> None:
        connection.recv()
        connection.close(1001, "The server is shutting down.")

    with serve(say_goodbye, "127.0.0.1", 0, close_timeout=1) as going:
        thread = threading.Thread(target=going.serve_forever)
        thread.start()
        port = going.socket.getsockname()[1]
        line = error_line(auricle("transcribe", "--realtime", f"http://127.0.0.1:{port}/v1", recordings[0]))
        going.shutdown()
        thread.join()
    assert "shutting down" in line


# models


def test_models_are_listed_with_languages_and_aliases():
    text = text_of(auricle("models"))
    assert re.search(rf"{MODEL} \(default\)\s+en\s", text)
    assert "gpt-4o-transcribe" in text
    assert "whisper-1" in text
    assert "begin with moonshine/" in text


def test_models_of_the_settings_are_listed_and_used(recordings: tuple[Path, Path]):
    models = json.dumps({"moonshine/copy": {"path": str(embedded_folder())}, "moonshine/lost": {"path": "/nowhere"}})
    text = text_of(auricle("models", AURICLE_MODELS=models, AURICLE_MODEL="moonshine/copy"))
    assert "moonshine/copy (default)" in text
    assert "moonshine/lost" in text
    heard = auricle("transcribe", "--model", "moonshine/copy", recordings[0], AURICLE_MODELS=models)
    assert "best of times" in text_of(heard)
    line = error_line(auricle("transcribe", "--model", "moonshine/lost", recordings[0], AURICLE_MODELS=models))
    assert re.search("moonshine/lost.*no folder /nowhere", line)


@pytest.mark.parametrize(("name", "told"), [("nope", "no model 'nope'"), (MODEL, f"nothing to fetch for {MODEL}")])
def test_a_model_that_cannot_be_fetched_is_told(name: str, told: str):
    assert told in error_line(auricle("models", "pull", name))
