"""Settings from flags, variables and a file."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError
from pydantic_settings import SettingsError

from auricle.engines.registry import catalog
from auricle.http.app import residence, worker_spec
from auricle.scheduler import Residence
from auricle.settings import DEFAULT_MODEL, OPENAI_MODEL_NAMES, Settings

SECRET = "s" * 32


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("AURICLE_"):
            monkeypatch.delenv(name)


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    file = tmp_path / "auricle.toml"
    file.write_text(f'port = 1\nmax_item_s = 4\nthreads = 1\napi_keys = ["sk-file"]\nsigning_secret = "{SECRET}"\n')
    return file


def test_flags_win_over_variables_and_variables_over_the_file(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AURICLE_PORT", "2")
    monkeypatch.setenv("AURICLE_MAX_ITEM_S", "2")
    settings = Settings(config=toml, port=3)
    assert (settings.port, settings.max_item_s, settings.threads) == (3, 2, 1)


def test_the_file_can_be_named_by_a_variable(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AURICLE_CONFIG", str(toml))
    settings = Settings()
    assert (settings.port, settings.all_api_keys) == (1, ("sk-file",))


def test_the_defaults_serve_this_machine_only() -> None:
    settings = Settings()
    assert settings.is_loopback
    assert settings.all_api_keys == ()
    assert settings.base_url == "http://127.0.0.1:8000/v1"


def test_all_of_openais_model_names_mean_the_default() -> None:
    settings = Settings()
    assert settings.model == DEFAULT_MODEL
    assert settings.aliases == dict.fromkeys(OPENAI_MODEL_NAMES, "")
    assert {"gpt-4o-transcribe", "gpt-transcribe", "gpt-live-transcribe", "whisper-1"} <= settings.aliases.keys()


def test_keys_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AURICLE_API_KEYS", "sk-one, sk-two,,")
    assert Settings().all_api_keys == ("sk-one", "sk-two")


def test_keys_come_from_both_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "keys"
    file.write_text("# ours\nsk-two\n\n  sk-three  \n")
    monkeypatch.setenv("AURICLE_API_KEYS", "sk-one")
    assert Settings(api_keys_file=file).all_api_keys == ("sk-one", "sk-two", "sk-three")


def test_a_file_of_keys_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="The file of API keys can't be read"):
        Settings(api_keys_file=tmp_path / "nothing")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org"])
def test_an_address_that_others_reach_needs_keys(host: str) -> None:
    with pytest.raises(ValidationError, match="no API key is set"):
        Settings(host=host)
    assert Settings(host=host, api_keys=("sk-one",)).host == host
    assert Settings(host=host, no_auth=True).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_needs_no_keys(host: str) -> None:
    assert Settings(host=host).is_loopback


def test_certificate_and_key_go_together(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    with pytest.raises(ValidationError, match="does not point to a file"):
        Settings(tls_cert=certificate, tls_key=key)
    certificate.touch()
    key.touch()
    with pytest.raises(ValidationError, match="go together"):
        Settings(tls_cert=certificate)
    settings = Settings(tls_cert=certificate, tls_key=key, host="::1")
    assert settings.base_url == "https://[::1]:8000/v1"


def test_secrets_are_not_shown() -> None:
    settings = Settings(api_keys=("sk-one",), signing_secret=SECRET)
    for shown in (repr(settings), str(settings), settings.model_dump_json()):
        assert "sk-one" not in shown
        assert SECRET not in shown


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    "wrong",
    [
        {"port": 70_000},
        {"port": "many"},
        {"threads": 0},
        {"decode_timeout_s": 0},
        {"max_item_s": 0},
        {"max_event_bytes": 1},
        {"log_level": "loud"},
        {"signing_secret": "short"},
        {"unknown": 1},
    ],
)
def test_values_that_make_no_sense_are_refused(wrong: dict) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(**wrong)
    assert caught.value.errors()[0]["loc"] == tuple(wrong)


def test_an_unknown_setting_in_the_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "auricle.toml"
    file.write_text("prot = 1\n")
    with pytest.raises(ValidationError, match="prot"):
        Settings(config=file)


def test_aliases_can_be_given_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AURICLE_ALIASES", '{"mine": "moonshine/tiny-en"}')
    assert Settings().aliases == {"mine": "moonshine/tiny-en"}
    monkeypatch.setenv("AURICLE_ALIASES", "mine")
    with pytest.raises(SettingsError):
        Settings()


@pytest.mark.parametrize(
    ("variables", "file", "words"),
    [
        ({"AURICLE_MAX_ITEM_S": "many"}, "", "max_item_s"),
        ({"AURICLE_HOST": "0.0.0.0"}, "", "no API key is set"),
        ({"AURICLE_MODEL": "nobody"}, "", "nobody"),
        ({"AURICLE_WEBRTC_PORTS": "50000"}, "", "webrtc_ports"),
        ({"AURICLE_WEBRTC_PORTS": "50100-50000"}, "", "the lower one first"),
        ({"AURICLE_WEBRTC_HOST": "example.org"}, "", "webrtc_host"),
        ({"AURICLE_WEBRTC_HOST": "192.0.2.7, 2001:db8::7"}, "", "2001:db8::7 in webrtc_host is IPv6"),
        ({"AURICLE_WEBRTC_HOST": "192.0.2.7", "AURICLE_HOST": "::1"}, "", "192.0.2.7 in webrtc_host is IPv4"),
        ({"AURICLE_ALIASES": "mine"}, "", "aliases"),
        ({"AURICLE_SIGNING_SECRET": "tooshort"}, "", "signing_secret"),
        ({}, "prot = 1\n", "prot"),
        ({}, "port = \n", ""),
        ({"AURICLE_CONFIG": "nowhere.toml"}, "", "nowhere.toml"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(variables: dict, file: str, words: str, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AURICLE_")}
    if file:
        (tmp_path / "auricle.toml").write_text(file)
        environment["AURICLE_CONFIG"] = str(tmp_path / "auricle.toml")
    ended = subprocess.run(
        [sys.executable, "-m", "auricle", "serve", "--port", "0"],
        env=environment | variables | {"COLUMNS": "400"},
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
    )
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert len(ended.stderr.strip().splitlines()) == 1
    assert ended.stderr.startswith("Error:")
    assert words in ended.stderr
    assert "tooshort" not in ended.stderr  # a secret


def test_calls_have_any_free_port_or_those_of_a_range() -> None:
    assert Settings().udp_ports == range(0, 1)
    assert Settings(webrtc_ports="50000-50100").udp_ports == range(50_000, 50_101)


def test_webrtc_hosts_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AURICLE_WEBRTC_HOST", "192.0.2.7, 2001:db8::7")
    assert [str(host) for host in Settings(host="::", no_auth=True).webrtc_host] == ["192.0.2.7", "2001:db8::7"]


def test_threads_are_set_for_all_models_or_for_each() -> None:
    models = {"moonshine/a": {"path": "/models/a", "threads": 3}, "moonshine/b": {"path": "/models/b"}}
    settings = Settings(threads=2, decode_timeout_s=7, models=models)
    specs = [worker_spec(settings, spec) for spec in catalog(settings).specs.values()]
    assert [(spec.threads, spec.decode_timeout_s) for spec in specs] == [(2, 7), (3, 7), (2, 7)]


def test_when_models_are_in_memory_is_set_for_all_or_for_each(tmp_path: Path) -> None:
    file = tmp_path / "auricle.toml"
    file.write_text(
        """
        model_idle_s = inf
        model = "moonshine/default"
        [models."moonshine/default"]
        path = "/models/default"
        idle_s = 5
        [models."moonshine/eager"]
        path = "/models/eager"
        load = "start"
        [models."moonshine/brief"]
        path = "/models/brief"
        idle_s = 5
        [models."moonshine/other"]
        path = "/models/other"
        """
    )
    settings = Settings(config=file)
    residences = {name: residence(settings, spec) for name, spec in catalog(settings).specs.items()}
    assert residences == {
        "moonshine/tiny-en": Residence(at_start=False, idle_s=math.inf),
        "moonshine/default": Residence(at_start=True, idle_s=math.inf),
        "moonshine/eager": Residence(at_start=True, idle_s=math.inf),
        "moonshine/brief": Residence(at_start=False, idle_s=5),
        "moonshine/other": Residence(at_start=False, idle_s=math.inf),
    }
    assert (Settings().model_idle_s, Settings().model_wait_s) == (600, 8)
