"""A session and the engine that streams from an offline model, together: any sequence, whatever the model says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from fakes import OPTIONS
from hypothesis import given, settings
from hypothesis import strategies as st
from sequences import DIALECTS, Op, Play, check, ops, speech

from auricle.audio.formats import SAMPLE_RATE
from auricle.engines.base import EngineError, Token, Transcript, Utterance
from auricle.engines.rolling import RollingEngine
from auricle.protocol.config import ServerVad, SessionConfig
from auricle.session.jobs import Decode, Hypothesis

WORDS_PER_S = 5
SENTENCE = [f" {first}{second}" for first in ("ka", "le", "mi", "no", "pu") for second in ("ra", "se", "ti", "vo")]
DELAYS = [None, "minimal", "low", "medium", "high", "xhigh"]


def words_in(samples: int) -> list[str]:
    """What so much speech says: always the same words, the more the longer it is."""
    count = samples * WORDS_PER_S // SAMPLE_RATE
    return [SENTENCE[index % len(SENTENCE)] for index in range(count)]


class ChangingModel:
    """Mishears each word with some chance, anew in every call: leaves it out, doubles it, cuts it up or changes it."""

    def __init__(self, seed: int, chance: float) -> None:
        self._rng = np.random.default_rng(seed)
        self._chance = chance

    def transcribe(self, utterances: Sequence[Utterance]) -> list[Transcript]:
        return [Transcript(self._tokens(utterance)) for utterance in utterances]

    def _tokens(self, utterance: Utterance) -> tuple[Token, ...]:
        found: list[Token] = []
        for word in words_in(utterance.samples.size):
            logprob = -0.1
            texts = [word]
            if self._rng.random() < self._chance:
                logprob = float(-self._rng.exponential())
                texts = [[], [word, word], [word[:2], " ", word[2:]], [" other"], [word, ","]][self._rng.integers(5)]
            found += [Token(text, logprob) for text in texts]
        return tuple(found)


class EnginePlay(Play):
    """A play whose texts come from a real engine, which may be lost at any time and begins anew."""

    def __init__(self, model: ChangingModel, delay: str | None, turn_detection: ServerVad | None, speech: list) -> None:
        self.model = model
        self.engine = RollingEngine(model)
        options = OPTIONS.model_copy(update={"delay": delay})
        super().__init__(DIALECTS[0], SessionConfig(transcription=options, turn_detection=turn_detection), speech)

    def decode(self, job: Decode, number: int) -> Hypothesis:
        if number % 5 == 1:
            self.engine = RollingEngine(self.model)
        if number % 11 == 1 and not job.is_final:
            raise EngineError("Broken.")
        return self.engine.decode([job])[0]


def steps() -> st.SearchStrategy[list[Op]]:
    """Mostly speech and its texts, since this is about those."""
    talk = st.tuples(st.just("talk"), st.integers(2_000, 30_000))
    text = st.tuples(st.just("text"), st.integers(0, 500))
    return st.lists(st.one_of(talk, talk, text, text, ops().map(lambda found: found[0])), min_size=10, max_size=50)


play_of = {
    "steps": steps(),
    "probabilities": speech(),
    "delay": st.sampled_from(DELAYS),
    "turn_detection": st.sampled_from([None, ServerVad()]),
}


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 1_000), chance=st.sampled_from([0.05, 0.3, 0.9]), **play_of)
def test_deltas_are_the_text_however_the_model_changes_its_mind(
    seed: int,
    chance: float,
    steps: list[Op],
    probabilities: list[float],
    delay: str | None,
    turn_detection: ServerVad | None,
) -> None:
    play = EnginePlay(ChangingModel(seed, chance), delay, turn_detection, probabilities)
    for step in steps:
        play.step(step)
    play.finish()
    check(play)


@settings(max_examples=150, deadline=None)
@given(**play_of)
def test_a_model_of_one_mind_is_quoted_word_for_word(
    steps: list[Op], probabilities: list[float], delay: str | None, turn_detection: ServerVad | None
) -> None:
    """Whatever was told when, whatever was lost: the text is that of each stretch of speech, decoded whole."""
    play = EnginePlay(ChangingModel(0, chance=0.0), delay, turn_detection, probabilities)
    for step in steps:
        play.step(step)
    play.finish()
    check(play)
    pieces: dict[str, dict[int, int]] = {}
    for job in play.all_decodes:  # the last one of each stretch has all of it
        pieces.setdefault(job.stream_id, {})[job.piece] = job.samples.size
    for event in play.told:
        if event["type"].endswith("transcription.completed"):
            sizes = pieces.get(event["item_id"], {}).values()
            assert event["transcript"] == "".join("".join(words_in(size)) for size in sizes).strip()
