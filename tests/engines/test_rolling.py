"""Streams from a model of whole utterances: what is settled when, and how it is found again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cache
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auricle.audio.formats import SAMPLE_RATE
from auricle.engines import rolling
from auricle.engines.base import (
    Context,
    Decode,
    EngineError,
    Hypothesis,
    Stage,
    Token,
    Transcript,
    Transcription,
    Utterance,
)
from auricle.engines.rolling import (
    SETTLE_RULES,
    Evidence,
    RollingEngine,
    SettleRule,
    boundary,
    keys_of,
    prefix_distances,
    words_of,
)
from auricle.protocol.config import DEFAULT_DELAY
from auricle.session.decoding import CADENCES

OPTIONS = Transcription(model="m")
AT_ONCE: SettleRule = (Evidence(stood_s=0.0, probability=0.0, followers=1),)
STEP_S = 0.25
"""How much longer each hypothesis' audio is than that of the one before."""


def tokens_of(text: str, probability: float = 0.5) -> tuple[Token, ...]:
    """A token per word and per mark."""
    pieces = text.replace(",", "\0,").replace(".", "\0.").replace(" ", "\0 ").split("\0")
    return tuple(Token(piece, math.log(probability)) for piece in pieces if piece)


def text_of(tokens: Iterable[Token]) -> str:
    return "".join(token.text for token in tokens)


class Script:
    """A model that says what it is told to say next, and remembers what it was given."""

    def __init__(self, *texts: str | tuple[Token, ...]) -> None:
        self.texts = list(texts)
        self.given: list[list[Utterance]] = []

    def transcribe(self, utterances: Sequence[Utterance]) -> list[Transcript]:
        self.given.append(list(utterances))
        return [Transcript(self._say(self.texts.pop(0))) for _ in utterances]

    @staticmethod
    def _say(text: str | tuple[Token, ...]) -> tuple[Token, ...]:
        if text == "fail":
            raise EngineError("out of memory")
        return tokens_of(text) if isinstance(text, str) else text


class Stream:
    """A stretch of speech and its text, as a session has it."""

    def __init__(self, engine: RollingEngine, name: str = "item_1", options: Transcription = OPTIONS) -> None:
        self.engine = engine
        self.name = name
        self.options = options
        self.size = 0
        self.piece = 0
        self.settled = ""

    def job(self, stage: Stage, step_s: float = STEP_S) -> Decode:
        self.size += int(step_s * SAMPLE_RATE)
        samples = np.zeros(self.size, np.float32)
        return Decode(self.name, self.options, samples, stage, self.piece, self.settled)

    def take(self, hypothesis: Hypothesis) -> tuple[str, str]:
        self.settled += text_of(hypothesis.committed)
        return text_of(hypothesis.committed), text_of(hypothesis.tentative)

    def decode(self, stage: Stage = Stage.SPEAKING, step_s: float = STEP_S) -> tuple[str, str]:
        """What is new and settled, and what may still change."""
        return self.take(self.engine.decode([self.job(stage, step_s)])[0])

    def end(self, step_s: float = STEP_S) -> str:
        settled, tentative = self.decode(Stage.FINAL, step_s)
        assert tentative == ""
        return settled


def stream_of(*texts: str | tuple[Token, ...], rule: SettleRule = AT_ONCE) -> Stream:
    return Stream(RollingEngine(Script(*texts), {DEFAULT_DELAY: rule}))


# Words


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        ([], []),
        ([" Good", " day"], [("good", 1), ("day", 2)]),
        ([" Go", "od", " d", "ay"], [("good", 2), ("day", 4)]),
        ([" Good", ",", " day", "."], [("good", 2), ("day", 4)]),
        (["Good", " -", " day"], [("good", 1), ("day", 3)]),
        ([" don", "'", "t", " go"], [("dont", 3), ("go", 4)]),
        ([" ...", " Good"], [("good", 2)]),
        ([" ..."], []),
        ([" É", "té"], [("été", 2)]),
    ],
)
def test_a_word_begins_with_a_space_and_has_its_punctuation(tokens: list[str], words: list[tuple[str, int]]) -> None:
    found = words_of([Token(text, -1.0) for text in tokens])
    assert [(word.key, word.end) for word in found] == words
    assert [word.key for word in found] == keys_of("".join(tokens))


@pytest.mark.parametrize("tokens", [[" said", ' "', "Hello"], [" in", " ", "1", "9"], [" for", " $", "5"]])
def test_a_space_without_letters_begins_a_word_too(tokens: list[str]) -> None:
    assert [word.key for word in words_of([Token(text, -1.0) for text in tokens])] == keys_of("".join(tokens))


def test_a_space_of_its_own_goes_with_the_number_that_follows() -> None:
    """The vocabulary has no digit with a space in front, so a number is a space and its digits."""
    assert [(word.key, word.end) for word in words_of([Token(text, -1.0) for text in (" in", " ", "2", "0")])] == [
        ("in", 1),
        ("20", 4),
    ]


def test_a_word_is_as_likely_as_its_least_likely_letters() -> None:
    tokens = [Token(" Go", math.log(0.9)), Token("od", math.log(0.6)), Token("!", math.log(0.1)), Token(" day", 0.0)]
    assert [word.probability for word in words_of(tokens)] == pytest.approx([0.6, 1.0])


def test_keys_are_letters_and_digits_without_case() -> None:
    assert keys_of(" It's 9 O'CLOCK -- now, Straße!") == ["its", "9", "oclock", "now", "strasse"]


# What of a new hypothesis was told before


@pytest.mark.parametrize(
    ("settled", "hypothesis", "rest"),
    [
        ("", " it was the best", " it was the best"),
        (" it was", " it was the best", " the best"),
        (" It was,", " it was the best", " the best"),
        (" it was", " it was", ""),
        (" it was", " it", ""),
        (" it was", "", ""),
        (" he was", " it was the best", " the best"),  # an earlier word has changed
        (" it was the beast", " it was the best of", " of"),
        (" some one said", " someone said it", " it"),  # joined
        (" someone said", " some one said it", " it"),  # split
        (" it was her", " it was the best", " best"),  # the last word has changed
        (" it was the", " well it was the best", " best"),  # a word more
        (" well it was the", " it was the best", " best"),  # a word less
        (" twenty five men", " 25 men went", " went"),
    ],
)
def test_what_follows_the_settled_text_is_new(settled: str, hypothesis: str, rest: str) -> None:
    tokens = tokens_of(hypothesis)
    words = words_of(tokens)
    begin = boundary(keys_of(settled), words)
    assert text_of(tokens[words[begin - 1].end if begin else 0 :]) == rest


@cache
def distance(one: str, other: str) -> int:
    """Levenshtein's, as it is defined."""
    if not one or not other:
        return len(one) + len(other)
    return min(
        distance(one[1:], other[1:]) + (one[0] != other[0]),
        distance(one[1:], other) + 1,
        distance(one, other[1:]) + 1,
    )


@given(st.text("ab", max_size=5), st.text("ab", max_size=5))
def test_prefix_distances_are_those_of_the_definition(text: str, other: str) -> None:
    assert prefix_distances(text, other) == [distance(text, other[:end]) for end in range(len(other) + 1)]


@given(
    st.lists(st.sampled_from(["a", "ab", "b", "ba"]), max_size=6),
    st.lists(st.sampled_from(["a", "ab", "b", "ba"]), max_size=6),
)
def test_the_boundary_is_nowhere_else_nearer(settled: list[str], words: list[str]) -> None:
    found = boundary(settled, words_of(tokens_of("".join(f" {word}" for word in words))))
    distances = [distance("".join(settled), "".join(words[:end])) for end in range(len(words) + 1)]
    same = next((index for index, word in enumerate(settled) if words[index : index + 1] != [word]), len(settled))
    if same == len(settled):
        assert found == same
    else:
        assert found >= same
        assert distances[found] == min(distances[same:])


# What is settled


def test_the_last_word_is_held_back() -> None:
    stream = stream_of(" it was", " it was the", " it was the best")
    assert stream.decode() == (" it", " was")
    assert stream.decode() == (" was", " the")
    assert stream.decode() == (" the", " best")


def test_as_many_words_are_held_back_as_the_rule_says() -> None:
    rule = (Evidence(stood_s=0.0, probability=0.0, followers=2),)
    assert stream_of(" it was the best", rule=rule).decode() == (" it was", " the best")
    assert stream_of(" it was", rule=rule).decode() == ("", " it was")


def test_a_word_is_settled_once_it_has_stood_long_enough() -> None:
    rule = (Evidence(stood_s=2 * STEP_S, probability=0.0, followers=1),)
    stream = stream_of(" it was", " it was the", " it was the best", " it was the best of", rule=rule)
    assert stream.decode() == ("", " it was")
    assert stream.decode() == ("", " it was the")
    assert stream.decode() == (" it was", " the best")
    assert stream.decode() == (" the", " best of")


def test_a_word_that_changes_begins_to_stand_anew_and_so_do_those_after_it() -> None:
    rule = (Evidence(stood_s=2 * STEP_S, probability=0.0, followers=1),)
    stream = stream_of(" it was the", " it is the", " it is the", " it is the best", rule=rule)
    stream.decode()
    stream.decode()
    assert stream.decode() == (" it", " is the")
    assert stream.decode() == (" is the", " best")


def test_a_likely_word_is_settled_sooner() -> None:
    rule = (
        Evidence(stood_s=0.0, probability=0.9, followers=1),
        Evidence(stood_s=STEP_S, probability=0.0, followers=1),
    )
    sure, unsure = tokens_of(" it was", 0.95), tokens_of(" the best", 0.5)
    stream = stream_of(sure + unsure, sure + unsure, rule=rule)
    assert stream.decode() == (" it was", " the best")
    assert stream.decode() == (" the", " best")


def test_a_likely_word_waits_for_the_unlikely_ones_before_it() -> None:
    rule = (Evidence(stood_s=0.0, probability=0.9, followers=1),)
    unsure, sure = tokens_of(" it", 0.5), tokens_of(" was the best", 0.95)
    assert stream_of(unsure + sure, rule=rule).decode() == ("", " it was the best")


def test_words_go_on_standing_behind_a_settled_one_that_has_changed() -> None:
    rule = (Evidence(stood_s=STEP_S, probability=0.0, followers=1),)
    stream = stream_of(" it was the best", " it was the best", " he was the best of", rule=rule)
    stream.decode()
    assert stream.decode() == (" it was the", " best")
    assert stream.decode() == (" best", " of")


def test_punctuation_comes_with_its_word() -> None:
    stream = stream_of(" Yes, it", " Yes, it was.", " Yes, it was. And")
    assert stream.decode() == (" Yes,", " it")
    assert stream.decode() == (" it", " was.")
    assert stream.decode() == (" was.", " And")


def test_punctuation_that_changes_later_is_not_told() -> None:
    stream = stream_of(" Yes it was", " Yes, it was. The", " Yes. It was; the best")
    assert stream.decode() == (" Yes it", " was")
    assert stream.decode() == (" was.", " The")
    assert stream.end() == " the best"
    assert stream.settled == " Yes it was. the best"


def test_a_hypothesis_that_falls_behind_takes_nothing_back_and_says_nothing_twice() -> None:
    stream = stream_of(" it was the best of", " it was", "", " it was the best of times")
    assert stream.decode() == (" it was the best", " of")
    assert stream.decode() == ("", "")
    assert stream.decode() == ("", "")
    assert stream.end() == " of times"


def test_silence_has_no_words() -> None:
    stream = stream_of("", " ...", "")
    assert stream.decode() == ("", "")
    assert stream.decode() == ("", " ...")
    assert stream.end() == ""


def test_each_delay_has_a_rule_and_a_cadence() -> None:
    (choices,) = [
        get_args(choice) for choice in get_args(Transcription.model_fields["delay"].annotation) if get_args(choice)
    ]
    assert set(SETTLE_RULES) == set(CADENCES) == set(choices)
    assert DEFAULT_DELAY in SETTLE_RULES


@pytest.mark.parametrize("delay", SETTLE_RULES)
def test_under_every_rule_a_word_that_stands_is_settled_in_time(delay: str) -> None:
    sentence = " it was the best of times it was"
    stream = Stream(RollingEngine(Script(*[sentence] * 200)), options=Transcription(model="m", delay=delay))
    assert stream.decode()[0] == ""
    for _ in range(199):
        stream.decode()
    assert " it was the best of" in stream.settled
    assert stream.settled != sentence


# The end


def test_audio_of_a_pause_is_not_transcribed_again_at_the_end() -> None:
    model = Script(" it was the", " it was the best.")
    stream = Stream(RollingEngine(model, {DEFAULT_DELAY: AT_ONCE}))
    stream.decode()
    assert stream.decode(Stage.PAUSE) == (" the", " best.")
    assert stream.end(step_s=0) == " best."
    assert len(model.given) == 2


def test_what_was_said_before_goes_to_the_model() -> None:
    model = Script(" times.")
    context = Context(np.zeros(10, np.float32), (Token(" best", -0.1), Token(" of", -0.1)))
    job = Decode("item_1", Transcription(model="m"), np.zeros(SAMPLE_RATE, np.float32), context=context)
    assert text_of(RollingEngine(model).decode([job])[0].committed) == " times."
    assert model.given[0][0].context is context


def test_the_end_gives_all_that_is_left() -> None:
    stream = stream_of(" it was the", " it was the best of times.")
    stream.decode()
    assert stream.end() == " the best of times."


def test_an_end_without_anything_before_it_gives_all() -> None:
    assert stream_of(" it was.").end() == " it was."


def test_a_stream_that_has_ended_is_forgotten() -> None:
    model = Script(" one.", " two.")
    engine = RollingEngine(model)
    assert Stream(engine).end() == " one."
    assert Stream(engine).end() == " two."


# What the model is given


def test_speech_that_goes_on_has_the_last_hypothesis_as_a_draft() -> None:
    model = Script(" it was", " it was the", " it was the best")
    stream = Stream(RollingEngine(model))
    for _ in range(3):
        stream.decode()
    assert [text_of(call[0].draft) for call in model.given] == ["", " it was", " it was the"]


def test_all_jobs_go_to_the_model_in_one_call() -> None:
    model = Script(" one", " two", " three")
    engine = RollingEngine(model)
    other = Transcription(model="m", language="en")
    streams = [Stream(engine, "a"), Stream(engine, "b", other), Stream(engine, "c")]
    found = engine.decode([stream.job(Stage.FINAL, index + 1) for index, stream in enumerate(streams)])
    assert [text_of(hypothesis.committed) for hypothesis in found] == [" one", " two", " three"]
    (call,) = model.given
    assert [(utterance.samples.size // SAMPLE_RATE, utterance.options) for utterance in call] == [
        (1, OPTIONS),
        (2, other),
        (3, OPTIONS),
    ]


def test_only_what_is_new_goes_to_the_model() -> None:
    model = Script(" one", " two")
    engine = RollingEngine(model)
    first, second = Stream(engine, "a"), Stream(engine, "b")
    first.decode(Stage.PAUSE)
    found = engine.decode([first.job(Stage.FINAL, 0), second.job(Stage.FINAL)])
    assert [text_of(hypothesis.committed) for hypothesis in found] == [" one", " two"]
    assert [len(call) for call in model.given] == [1, 1]


def test_other_options_are_another_hypothesis() -> None:
    model = Script(" eins zwei", " one two")
    stream = Stream(RollingEngine(model))
    stream.decode(Stage.PAUSE)
    stream.options = Transcription(model="m", language="en")
    assert stream.end(step_s=0) == " one two"
    assert model.given[1][0].draft == ()


def test_the_model_is_not_called_for_nothing() -> None:
    model = Script()
    assert RollingEngine(model).decode([]) == []
    assert model.given == []


# Streams beside each other, and what is lost


def test_streams_and_pieces_do_not_mix() -> None:
    first, last = (" one two", " ten men", " eins zwei"), (" one two three", " ten men went", " eins zwei drei")
    engine = RollingEngine(Script(*first, *last))
    streams = [Stream(engine, "a"), Stream(engine, "b"), Stream(engine, "a")]
    streams[2].piece = 1
    assert tuple(stream.decode()[1] for stream in streams) == first
    assert tuple(stream.end() for stream in streams) == last


def test_a_lost_engine_takes_nothing_back_and_says_nothing_twice() -> None:
    model = Script(" it was the", " it was the best of", " It was the best of times.")
    stream = Stream(RollingEngine(model, {DEFAULT_DELAY: AT_ONCE}))
    for lost_before in (" it was", " the best"):
        assert stream.decode()[0] == lost_before
        stream.engine = RollingEngine(model, {DEFAULT_DELAY: AT_ONCE})
    assert stream.end(step_s=0) == " of times."
    assert [text_of(call[0].draft) for call in model.given] == ["", "", ""]


def test_a_forgotten_stream_only_costs_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rolling, "MAX_STREAMS", 2)
    model = Script(" it was the", " two", " three", " it was the best.", " two")
    engine = RollingEngine(model, {DEFAULT_DELAY: AT_ONCE})
    first, second, third = (Stream(engine, name) for name in "abc")
    assert first.decode(Stage.PAUSE) == (" it was", " the")
    second.decode(Stage.PAUSE)
    third.decode(Stage.PAUSE)
    assert first.end(step_s=0) == " the best."
    assert third.end(step_s=0) == " three"  # was kept
    assert len(model.given) == 4


def test_a_failure_of_the_model_is_passed_on_and_changes_nothing() -> None:
    model = Script(" it was the", "fail", " it was the best.")
    stream = Stream(RollingEngine(model, {DEFAULT_DELAY: AT_ONCE}))
    stream.decode()
    with pytest.raises(EngineError, match="out of memory"):
        stream.decode()
    assert stream.settled == " it was"
    assert stream.end() == " the best."


# Whatever the model says

WORDS = st.sampled_from([" it", " was", " the", " best", ",", ".", "s", " ...", " "])
HYPOTHESES = st.lists(WORDS, max_size=8).map(lambda texts: tuple(Token(text, math.log(0.6)) for text in texts))


@given(
    hypotheses=st.lists(HYPOTHESES, min_size=1, max_size=6),
    delay=st.sampled_from(list(SETTLE_RULES)),
    losses=st.sets(st.integers(0, 5)),
    steps_s=st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=6, max_size=6),
)
def test_settled_text_continues_what_was_settled_before(
    hypotheses: list[tuple[Token, ...]], delay: str, losses: set[int], steps_s: list[float]
) -> None:
    """What a hypothesis adds are its own words from some word on, and nothing stands in both of its parts."""
    model = Script(*hypotheses)
    stream = Stream(RollingEngine(model), options=Transcription(model="m", delay=delay))
    for index in range(len(hypotheses)):
        if index in losses:
            stream.engine = RollingEngine(model)
        is_last = index == len(hypotheses) - 1
        (found,) = stream.engine.decode([stream.job(Stage.FINAL if is_last else Stage.SPEAKING, steps_s[index] + 0.01)])
        said = hypotheses[index]
        parts = found.committed + found.tentative
        assert parts == said[len(said) - len(parts) :]
        assert len(said) - len(parts) in {0, len(said), *(word.end for word in words_of(said))}
        assert not (is_last and found.tentative)
        stream.take(found)


@given(
    sentence=st.lists(st.sampled_from([" it", " was", " the", " best", " of"]), max_size=12),
    delay=st.sampled_from(list(SETTLE_RULES)),
    lengths=st.lists(st.integers(0, 12), max_size=6),
)
def test_a_model_that_is_of_one_mind_is_quoted_word_for_word(
    sentence: list[str], delay: str, lengths: list[int]
) -> None:
    heard = ["".join(sentence[:length]) for length in sorted(lengths)]
    stream = Stream(RollingEngine(Script(*heard, "".join(sentence))), options=Transcription(model="m", delay=delay))
    for _ in heard:
        stream.decode()
    stream.end()
    assert stream.settled == "".join(sentence)
