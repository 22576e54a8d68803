"""The Session tab: what is set there is told to the session, and what the server says to it is shown."""

from __future__ import annotations

import pytest
from browsing import WAIT_MS, Playground, check_sessions, of
from playwright.sync_api import expect
from wire import LOGPROBS, UPDATE, UPDATED

from auricle.protocol.config import WORDS


def listening(playground: Playground) -> Playground:
    """With the sample, which takes its time."""
    playground.choose("Sample")
    playground.start()
    playground.until("listening")
    return playground


def error_of(playground: Playground, name: str):
    return playground.page.locator(f"#setting-{name}-error")


def test_change_is_told_to_the_running_session_and_comes_back(playground: Playground) -> None:
    listening(playground)
    playground.set("silence_duration_ms", "250")
    playground.set("noise_reduction", "near_field")
    playground.set("format", "audio/pcmu")
    playground.until_completed("best of times")
    playground.stop()
    [session] = check_sessions(playground.received())
    updates = [event["session"] for event in of(playground.sent(), UPDATE["ga"])][:3]
    assert [update["audio"]["input"] for update in updates] == [
        {"turn_detection": {"type": "server_vad", "silence_duration_ms": 250}},
        {"noise_reduction": {"type": "near_field", "strength": 1}},
        {"format": {"type": "audio/pcmu"}},
    ]
    settings = of(session, UPDATED["ga"])[2]["session"]["audio"]["input"]
    assert settings["turn_detection"]["silence_duration_ms"] == 250
    assert settings["noise_reduction"] == {"type": "near_field", "strength": 1}
    assert settings["format"] == {"type": "audio/pcmu"}


def test_wrong_change_is_told_at_its_field_and_the_session_lives_on(playground: Playground) -> None:
    listening(playground)
    playground.set("silence_duration_ms", "-5")
    expect(error_of(playground, "silence_duration_ms")).to_be_visible(timeout=WAIT_MS)
    expect(playground.setting("silence_duration_ms")).to_have_attribute("aria-invalid", "true")
    [error] = of(playground.received(), "error")
    expect(error_of(playground, "silence_duration_ms")).to_have_text(error["error"]["message"])
    playground.set("silence_duration_ms", "300")
    expect(error_of(playground, "silence_duration_ms")).to_be_hidden()
    playground.until_completed("best of times")
    playground.stop()
    [session] = check_sessions(playground.received())
    [update, *_] = of(session, UPDATED["ga"])
    assert update["session"]["audio"]["input"]["turn_detection"]["silence_duration_ms"] == 300


def test_session_that_is_refused_tells_the_field(playground: Playground) -> None:
    playground.faults.expected.append("400")
    playground.set("keywords", "\n".join(f"word{number}" for number in range(2000)))
    playground.set("rate", "100")
    playground.choose("Sample")
    playground.start()
    playground.until("failed")
    expect(playground.notice).to_contain_text("refused")
    expect(error_of(playground, "rate")).to_contain_text("rate")
    assert playground.received() == []
    playground.page.get_by_role("button", name="Reset").click()
    expect(error_of(playground, "rate")).to_be_hidden()
    playground.start()
    playground.until("listening")
    playground.stop()


@pytest.mark.parametrize(
    ("setting", "tells", "button"),
    [
        ("logprobs", "tells no log-probabilities; leave out 'session.include'", "Start without log-probabilities"),
        ("words", "can't tell when words were said, which 'session.include' asks for", "Start without times of words"),
    ],
)
def test_model_that_does_not_tell_something_is_started_without_it(
    playground: Playground, setting: str, tells: str, button: str
) -> None:
    """The page asks for log-probabilities by itself. The answer is the one that `http/test_upstream.py` gets."""
    playground.setting("words").check()
    message = f"The model 'a-model' {tells}."
    error = {"type": "invalid_request_error", "code": "invalid_value", "message": message, "param": "session.include"}
    playground.faults.expected.append("400")
    playground.page.route(
        "**/v1/realtime/client_secrets", lambda route: route.fulfill(status=400, json={"error": error}), times=1
    )
    playground.choose("Sample")
    playground.start()
    playground.until("failed")
    expect(error_of(playground, setting)).to_have_text(message)
    playground.page.get_by_role("button", name=button).click()
    playground.until("listening")
    expect(playground.setting(setting)).not_to_be_checked()
    expect(error_of(playground, setting)).to_be_hidden()
    playground.until_completed("best of times")
    playground.stop()
    [session] = check_sessions(playground.received())
    other = {"logprobs": WORDS, "words": LOGPROBS}[setting]
    assert session[0]["session"]["include"] == [other]


def test_object_as_json_is_the_one_that_opens_the_session(playground: Playground) -> None:
    playground.set("language", "en")
    playground.choose("JSON")
    shown = playground.page.locator("#json").inner_text()
    playground.choose("Sample")
    with playground.page.expect_request("**/v1/realtime/client_secrets") as minted:
        playground.start()
    assert minted.value.post_data_json == {"session": playground.page.evaluate("JSON.parse", shown)}
    playground.until("listening")
    playground.stop()
