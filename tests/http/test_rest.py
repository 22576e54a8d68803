"""The REST routes: ephemeral keys, models, health, the documentation, and how they refuse what is wrong."""

from __future__ import annotations

import re
import time
from typing import Any

import httpx
import pytest
import schemathesis
from conftest import RunningServer
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from wire import check_session, open_wire

SECRETS = "/realtime/client_secrets"
SESSIONS = "/realtime/transcription_sessions"
CALLS = "/realtime/calls"
JSON = {"Content-Type": "application/json"}
OPENAI_NAMES = ("gpt-4o-transcribe", "gpt-4o-mini-transcribe", "gpt-transcribe", "gpt-realtime-whisper", "whisper-1")
MODEL = "moonshine/tiny-en"


@pytest.fixture(scope="module")
def api(server: RunningServer):
    """A client whose paths are under `/v1`."""
    with httpx.Client(base_url=server.base_url, headers={"Authorization": "Bearer any-key"}) as client:
        yield client


@pytest.fixture(scope="module")
def root(server: RunningServer):
    """A client whose paths are under `/`, without a key."""
    with httpx.Client(base_url=server.root_url) as client:
        yield client


def error_of(response: httpx.Response, status: int = 400) -> dict[str, Any]:
    """The error in OpenAI's envelope, which must be there and be all there is."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert set(body) == {"error"}
    error = body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert error["message"]
    assert error["type"] == ("server_error" if status >= 500 else "invalid_request_error")
    return error


def fault_of(response: httpx.Response, status: int = 400) -> tuple[str | None, str | None]:
    error = error_of(response, status)
    return error["code"], error["param"]


def ga(**audio_input: Any) -> dict[str, Any]:
    """A body of `client_secrets` with a session."""
    return {"session": {"type": "transcription", "audio": {"input": audio_input}}}


# Fuzzing

load_all_checks()
schemathesis.serializer.alias("application/sdp", "text/plain")
# A body can fit the schema and be refused all the same: only the server knows which models and languages there are.
_CHECKS = [
    check
    for name in CHECKS.get_all_names()
    if name != "positive_data_acceptance"
    for check in CHECKS.get_by_names([name])
]


@pytest.fixture(scope="module")
def described_api(server: RunningServer):
    return schemathesis.openapi.from_url(server.root_url + "/openapi.json")


_POSTED = ("/v1" + SECRETS, "/v1" + SESSIONS, "/v1" + CALLS, "/v1/realtime", "/v1/audio/transcriptions")
_ROUTES = [("POST", path) for path in _POSTED]
_ROUTES_WITHOUT_BODY = [
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{name}"),
    ("GET", "/health"),
    ("POST", "/v1/realtime/calls/{call_id}/hangup"),
]


@pytest.mark.parametrize(
    ("mode", "method", "path"),
    [
        *((GenerationMode.POSITIVE, *route) for route in _ROUTES + _ROUTES_WITHOUT_BODY),
        *((GenerationMode.NEGATIVE, *route) for route in _ROUTES),
    ],
    ids=lambda value: value.value if isinstance(value, GenerationMode) else value,
)
def test_whatever_is_asked_the_answer_is_as_documented(described_api, mode: GenerationMode, method: str, path: str):
    @hypothesis_settings(
        max_examples=50 if method == "POST" else 10,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=described_api[path][method].as_strategy(generation_mode=mode))
    def ask(case):
        response = case.call(headers={"Authorization": "Bearer any-key"})
        case.validate_response(response, checks=_CHECKS)
        if response.status_code >= 400:
            assert set(response.json()["error"]) == {"message", "type", "param", "code"}

    ask()


# Bodies


@pytest.mark.parametrize("path", [SECRETS, SESSIONS])
@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "invalid_json"),
        (b"{} {}", "invalid_json"),
        (b"\xff\xfe{", "invalid_json"),
        (b"[]", "invalid_type"),
        (b'"text"', "invalid_type"),
        (b"[" * 100_000, "invalid_json"),
        (b'{"nothing": ' + b"1" * 5_000 + b"}", "invalid_json"),
        (b'{"nothing": NaN}', "invalid_json"),
        (b'{"\\ud800": 1}', "invalid_json"),
    ],
    ids=lambda value: repr(value[:12]) if isinstance(value, bytes) else None,
)
def test_a_body_that_is_no_json_object_is_refused(api: httpx.Client, path: str, body: bytes, code: str):
    assert error_of(api.post(path, content=body, headers=JSON))["code"] == code


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (SECRETS, b'{"session":{"type":"transcription","audio":{"input":{"transcription":{"prompt":"\\ud800"}}}}}'),
        (SECRETS, b'{"session":{"type":"transcription","audio":{"input":{"transcription":{"model":"\\ud800"}}}}}'),
        (SESSIONS, b'{"input_audio_transcription":{"keywords":["\\udfff"]}}'),
        (SESSIONS, b'{"input_audio_format":"\\ud800"}'),
    ],
)
def test_half_a_surrogate_pair_is_refused_since_no_answer_could_repeat_it(api: httpx.Client, path: str, body: bytes):
    error_of(api.post(path, content=body, headers=JSON))


@pytest.mark.parametrize("path", [SECRETS, SESSIONS])
def test_a_form_is_refused(api: httpx.Client, path: str):
    error = error_of(api.post(path, data={"session": "x"}))
    assert "Content-Type: application/json" in error["message"]


@pytest.mark.parametrize("path", [SECRETS, SESSIONS])
def test_a_body_of_no_declared_type_is_read_as_json(api: httpx.Client, path: str):
    assert api.post(path, content=b"{}").status_code == 200


# client_secrets


@pytest.mark.parametrize("body", [{}, {"session": None}, {"session": {"type": "transcription"}}, None], ids=repr)
def test_a_client_secret_with_no_settings_carries_the_default_session(api: httpx.Client, body: Any):
    before = int(time.time())
    answer = api.post(SECRETS, json=body).json()
    assert set(answer) == {"value", "expires_at", "session"}
    assert answer["value"].startswith("ek_")
    assert before + 600 <= answer["expires_at"] <= time.time() + 600
    session = answer["session"]
    assert session["expires_at"] == 0
    assert session["audio"]["input"] == {
        "format": {"type": "audio/pcm", "rate": 24_000},
        "transcription": None,
        "noise_reduction": None,
        "turn_detection": {
            "type": "server_vad",
            "threshold": 0.5,
            "prefix_padding_ms": 300,
            "silence_duration_ms": 200,
        },
    }


def test_no_body_is_as_good_as_an_empty_one(api: httpx.Client):
    for path in (SECRETS, SESSIONS):
        response = api.post(path)
        assert response.status_code == 200


@pytest.mark.parametrize("seconds", [10, 600, 7200])
def test_a_client_secret_lasts_as_long_as_asked(api: httpx.Client, seconds: int):
    before = int(time.time())
    answer = api.post(SECRETS, json={"expires_after": {"anchor": "created_at", "seconds": seconds}}).json()
    assert before + seconds <= answer["expires_at"] <= time.time() + seconds


def test_a_client_secret_answers_with_the_whole_session_it_opens(api: httpx.Client):
    body = ga(
        format={"type": "audio/pcmu"},
        transcription={"model": "gpt-4o-transcribe", "language": "en"},
        noise_reduction={"type": "near_field"},
        turn_detection={"type": "server_vad", "silence_duration_ms": 500},
    )
    body["session"]["include"] = ["item.input_audio_transcription.logprobs"]
    session = api.post(SECRETS, json=body).json()["session"]
    check_session(session, "ga")
    audio_input = session["audio"]["input"]
    assert audio_input["format"] == {"type": "audio/pcmu"}
    assert audio_input["transcription"] == {"model": "gpt-4o-transcribe", "language": "en", "prompt": None}
    assert audio_input["noise_reduction"]["type"] == "near_field"
    assert audio_input["turn_detection"]["silence_duration_ms"] == 500
    assert audio_input["turn_detection"]["threshold"] == 0.5
    assert session["include"] == ["item.input_audio_transcription.logprobs"]


def test_turn_detection_of_a_client_secret_can_be_none(api: httpx.Client):
    session = api.post(SECRETS, json=ga(turn_detection=None)).json()["session"]
    assert session["audio"]["input"]["turn_detection"] is None


_SESSION = "session.audio.input"


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"expires_after": {"seconds": 9}}, "integer_below_min_value", "expires_after.seconds"),
        ({"expires_after": {"seconds": 7201}}, "integer_above_max_value", "expires_after.seconds"),
        ({"expires_after": {"seconds": "60"}}, "invalid_type", "expires_after.seconds"),
        ({"expires_after": {"seconds": True}}, "invalid_type", "expires_after.seconds"),
        ({"expires_after": {"anchor": "now"}}, "invalid_value", "expires_after.anchor"),
        ({"expires_after": 60}, "invalid_type", "expires_after"),
        ({"expires_after": {"minutes": 1}}, "unknown_parameter", "expires_after.minutes"),
        ({"foo": 1}, "unknown_parameter", "foo"),
        ({"session": {}}, "missing_required_parameter", "session.type"),
        ({"session": {"type": "x"}}, "invalid_value", "session.type"),
        ({"session": {"type": "realtime"}}, "invalid_parameter", None),
        ({"session": {"type": "transcription", "model": "whisper-1"}}, "invalid_parameter", None),
        ({"session": {"type": "transcription", "foo": 1}}, "unknown_parameter", "session.foo"),
        ({"session": {"type": "transcription", "include": ["x"]}}, "invalid_value", "session.include[0]"),
        ({"session": "x"}, "invalid_type", "session"),
        (ga(foo=1), "unknown_parameter", f"{_SESSION}.foo"),
        (ga(format={"type": "audio/mp3"}), "invalid_value", f"{_SESSION}.format.type"),
        (ga(format={"type": "audio/pcm", "rate": 7999}), "integer_below_min_value", f"{_SESSION}.format.rate"),
        (ga(format={"type": "audio/pcm", "rate": 48001}), "integer_above_max_value", f"{_SESSION}.format.rate"),
        (ga(transcription={"model": "nope"}), "invalid_value", f"{_SESSION}.transcription.model"),
        (ga(transcription={"model": MODEL, "language": "de"}), "invalid_value", f"{_SESSION}.transcription.language"),
        (ga(transcription={"model": MODEL, "languages": []}), "empty_array", f"{_SESSION}.transcription.languages"),
        (ga(turn_detection={}), "missing_required_parameter", f"{_SESSION}.turn_detection.type"),
        (ga(turn_detection={"type": "x"}), "invalid_value", f"{_SESSION}.turn_detection.type"),
        (
            ga(turn_detection={"type": "server_vad", "threshold": 1.5}),
            "decimal_above_max_value",
            f"{_SESSION}.turn_detection.threshold",
        ),
        (
            ga(turn_detection={"type": "server_vad", "prefix_padding_ms": -1}),
            "integer_below_min_value",
            f"{_SESSION}.turn_detection.prefix_padding_ms",
        ),
        (ga(noise_reduction={"type": "loud"}), "invalid_value", f"{_SESSION}.noise_reduction.type"),
        (ga(transcription={"model": MODEL, "prompt": "x" * 6_000}), "string_above_max_length", "session"),
    ],
    ids=lambda value: str(value)[:80],
)
def test_a_client_secret_with_a_wrong_field_is_refused(api: httpx.Client, body: Any, code: str, param: str | None):
    assert fault_of(api.post(SECRETS, json=body)) == (code, param)


def test_the_refusal_of_a_model_lists_those_there_are(api: httpx.Client):
    message = error_of(api.post(SECRETS, json=ga(transcription={"model": "nope"})))["message"]
    assert all(f"'{name}'" in message for name in (MODEL, *OPENAI_NAMES))


# transcription_sessions


@pytest.mark.parametrize("body", [{}, None], ids=repr)
def test_a_transcription_session_has_the_defaults_of_beta(api: httpx.Client, body: Any):
    before = int(time.time())
    session = api.post(SESSIONS, json=body, headers={"OpenAI-Beta": "assistants=v2"}).json()
    check_session(session, "beta")
    secret = session.pop("client_secret")
    assert secret["value"].startswith("ek_")
    assert before + 60 <= secret["expires_at"] <= time.time() + 60
    del session["id"]
    assert session == {
        "object": "realtime.transcription_session",
        "expires_at": 0,
        "modalities": ["audio", "text"],
        "input_audio_format": "pcm16",
        "input_audio_transcription": {"model": MODEL, "language": None, "prompt": None},
        "input_audio_noise_reduction": None,
        "turn_detection": {
            "type": "server_vad",
            "threshold": 0.5,
            "prefix_padding_ms": 300,
            "silence_duration_ms": 200,
        },
        "include": None,
    }


def test_a_transcription_session_takes_every_field_of_beta(api: httpx.Client):
    body = {
        "input_audio_format": "g711_alaw",
        "input_audio_transcription": {"model": "whisper-1", "language": "en", "prompt": "names"},
        "input_audio_noise_reduction": {"type": "far_field"},
        "turn_detection": {"type": "semantic_vad", "eagerness": "high"},
        "include": ["item.input_audio_transcription.logprobs"],
        "modalities": ["text"],
        "client_secret": {"expires_at": {"anchor": "created_at", "seconds": 7200}},
    }
    before = int(time.time())
    session = api.post(SESSIONS, json=body).json()
    assert before + 7200 <= session["client_secret"]["expires_at"] <= time.time() + 7200
    assert session["input_audio_noise_reduction"]["type"] == "far_field"
    assert session["turn_detection"] == body["turn_detection"]
    for name in ("input_audio_format", "input_audio_transcription", "include", "modalities"):
        assert session[name] == body[name]


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (
            {"client_secret": {"expires_at": {"seconds": 9}}},
            "integer_below_min_value",
            "client_secret.expires_at.seconds",
        ),
        (
            {"client_secret": {"expires_at": {"seconds": 7201}}},
            "integer_above_max_value",
            "client_secret.expires_at.seconds",
        ),
        ({"input_audio_format": "mp3"}, "invalid_value", "input_audio_format"),
        ({"input_audio_format": 1}, "invalid_type", "input_audio_format"),
        ({"input_audio_transcription": {"model": "nope"}}, "invalid_value", "input_audio_transcription.model"),
        (
            {"input_audio_transcription": {"language": "xx"}},
            "invalid_value",
            "input_audio_transcription.language",
        ),
        ({"turn_detection": {}}, "missing_required_parameter", "turn_detection.type"),
        ({"turn_detection": {"type": "server_vad", "foo": 1}}, "unknown_parameter", "turn_detection.foo"),
        ({"modalities": ["video"]}, "invalid_value", "modalities[0]"),
        ({"session": {}}, "unknown_parameter", "session"),
        ({"type": "transcription"}, "unknown_parameter", "type"),
    ],
    ids=lambda value: str(value)[:80],
)
def test_a_transcription_session_with_a_wrong_field_is_refused(api: httpx.Client, body: Any, code: str, param: str):
    # The body has no `session`, so no param begins with it.
    assert fault_of(api.post(SESSIONS, json=body)) == (code, param)


# Keys


def test_every_route_but_health_and_the_documentation_asks_for_a_key(server_with):
    server = server_with("--api-keys", "right-key")
    with httpx.Client(base_url=server.root_url) as client:
        for method, path in [
            ("POST", "/v1" + SECRETS),
            ("POST", "/v1" + SESSIONS),
            ("GET", "/v1/models"),
            ("GET", f"/v1/models/{MODEL}"),
        ]:
            assert fault_of(client.request(method, path), 401) == (None, None)
            wrong = client.request(method, path, headers={"Authorization": "Bearer wrong-key-of-mine"})
            assert fault_of(wrong, 401) == ("invalid_api_key", None)
            assert "wrong-key-of-mine" not in wrong.text
            for headers in ({"Authorization": "Bearer right-key"}, {"api-key": "right-key"}):
                assert client.request(method, path, headers=headers).status_code == 200
        for path in ("/health", "/docs", "/openapi.json"):
            assert client.get(path).status_code == 200

        # An ephemeral key opens sessions only.
        secret = client.post("/v1" + SECRETS, headers={"Authorization": "Bearer right-key"}).json()["value"]
        refused = client.post("/v1" + SECRETS, headers={"Authorization": f"Bearer {secret}"})
        assert fault_of(refused, 401) == ("invalid_api_key", None)
        with open_wire(server.socket_url, key=secret, query="") as wire:
            wire.until("session.created")


# Models, health


def test_a_request_without_a_key_is_refused_before_its_body_is_read(server_with):
    server = server_with(AURICLE_API_KEYS="sk-test")
    for body in (b"{", b"x" * 5_000_000):
        response = httpx.post(f"{server.base_url}/realtime/client_secrets", content=body)
        assert error_of(response, status=401)["message"].startswith("Missing bearer")


@pytest.mark.parametrize("path", ["/realtime/client_secrets", "/realtime/transcription_sessions"])
def test_a_body_over_1_mib_is_refused(api: httpx.Client, path: str):
    body = b'{"session": "' + b"x" * 1024 * 1024 + b'"}'
    assert error_of(api.post(path, content=body), status=413)["type"] == "invalid_request_error"


def test_models_lists_the_models_and_openais_names(api: httpx.Client):
    answer = api.get("/models").json()
    assert answer["object"] == "list"
    assert {MODEL, *OPENAI_NAMES} <= {model["id"] for model in answer["data"]}
    for model in answer["data"]:
        assert set(model) == {"id", "object", "created", "owned_by"}
        assert model["object"] == "model"


@pytest.mark.parametrize("name", [MODEL, "whisper-1"])
def test_a_model_can_be_retrieved_by_each_of_its_names(api: httpx.Client, name: str):
    assert api.get(f"/models/{name}").json()["id"] == name


def test_an_unknown_model_is_not_found(api: httpx.Client):
    assert fault_of(api.get("/models/nope"), 404) == ("model_not_found", "model")


def test_health_tells_how_many_sessions_are_open(server: RunningServer, root: httpx.Client):
    before = root.get("/health").json()
    assert before["status"] == "ok"
    with open_wire(server.socket_url) as wire:
        wire.until("session.created")
        assert root.get("/health").json()["sessions"] == before["sessions"] + 1


# What is not there


@pytest.mark.parametrize("path", ["/nowhere", "/v1", "/v1/audio", "/v1/realtime/calls/rtc_1"])
def test_an_unknown_address_is_not_found_in_the_envelope(root: httpx.Client, path: str):
    assert fault_of(root.get(path), 404) == ("unknown_url", None)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "/health"),
        ("POST", "/v1/models"),
        ("GET", "/v1" + SECRETS),
        ("PUT", "/v1" + SESSIONS),
        ("GET", "/v1" + CALLS),
    ],
)
def test_a_method_that_an_address_lacks_is_told_in_the_envelope(root: httpx.Client, method: str, path: str):
    response = root.request(method, path)
    error_of(response, 405)
    assert response.headers["allow"]


# Documentation


def test_the_documentation_needs_no_other_server(root: httpx.Client):
    page = root.get("/docs")
    assert page.status_code == 200
    links = re.findall(r"""(?:src|href)=["']([^"']+)["']""", page.text)
    assert any(link.endswith(".js") for link in links)
    assert any(link.endswith(".css") for link in links)
    assert not re.search(r"https?:|[\"']//", page.text)
    for link in links:
        assert link.startswith("/")
        file = root.get(link)
        assert file.status_code == 200
        assert len(file.content) > 100


def test_the_description_has_every_route_and_its_errors(root: httpx.Client):
    description = root.get("/openapi.json").json()
    assert {"/v1" + SECRETS, "/v1" + SESSIONS, "/v1/models", "/v1/models/{name}", "/health"} <= set(
        description["paths"]
    )
    for routes in description["paths"].values():
        for route in routes.values():
            assert len(route["responses"]) == 2
            assert "4XX" in route["responses"]
            schema = route["responses"]["4XX"]["content"]["application/json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/ErrorResponse"}
