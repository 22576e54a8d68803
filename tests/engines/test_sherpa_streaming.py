"""Models of sherpa-onnx that stream by themselves, with a small one whose text tells what it has heard."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import tiny_transducer
from tiny_transducer import CHUNK_S, FRAME_S, HIGH_HZ, LOW_HZ, WORD_FRAMES, between, tone, words

from auricle.audio.formats import SAMPLE_RATE, Samples
from auricle.engines import sherpa_streaming
from auricle.engines.base import Decode, EngineError, Hypothesis, ModelSpec, Stage, Transcription
from auricle.engines.registry import catalog, load_engine
from auricle.engines.sherpa import SherpaSettings, _may_revise, _recognizer
from auricle.engines.sherpa_streaming import IDLE_S, StreamingEngine, _tokens, emission_spans
from auricle.settings import Settings

pytest.importorskip("sherpa_onnx")

WORD_S = WORD_FRAMES * FRAME_S
STEP_S = 0.16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_transducer.build(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def nemo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_transducer.build_nemo(tmp_path_factory.mktemp("models") / "nemo")


@pytest.fixture(scope="module")
def nemo(nemo_folder: Path) -> StreamingEngine:
    loaded = load_engine(spec(nemo_folder), 1)
    assert isinstance(loaded, StreamingEngine)
    return loaded


def spec(folder: Path, **values: Any) -> ModelSpec:
    model = {"path": str(folder), "kind": "transducer", "streaming": True} | values
    return catalog(Settings(models={"sherpa/tiny": model})).spec("sherpa/tiny")


@pytest.fixture(scope="module")
def engine(folder: Path) -> StreamingEngine:
    loaded = load_engine(spec(folder), 1)
    assert isinstance(loaded, StreamingEngine)
    return loaded


BEAM = {"decoding_method": "modified_beam_search", "modeling_unit": "bpe"}


@pytest.fixture(scope="module")
def beam(folder: Path) -> StreamingEngine:
    loaded = load_engine(spec(folder, options=BEAM, files={"bpe_vocab": "bpe.vocab"}), 1)
    assert isinstance(loaded, StreamingEngine)
    return loaded


class Watched:
    """A recogniser of which all that is done with it is written down."""

    def __init__(self, folder: Path) -> None:
        self.real = _recognizer("sherpa/tiny", SherpaSettings(path=folder, kind="transducer", streaming=True), 1)
        self.streams: list[WatchedStream] = []
        self.batches: list[int] = []
        self.fails = False
        self.takes_several = True

    def create_stream(self) -> WatchedStream:
        self.streams.append(WatchedStream(self.real.create_stream()))
        return self.streams[-1]

    def is_ready(self, stream: WatchedStream) -> bool:
        return self.real.is_ready(stream.real)

    def decode_streams(self, streams: list[WatchedStream]) -> None:
        if self.fails or (len(streams) > 1 and not self.takes_several):
            for stream in streams:  # as the library does: what they had is gone
                stream.real = self.real.create_stream()
            raise RuntimeError("Out of order.")
        self.batches.append(len(streams))
        self.real.decode_streams([stream.real for stream in streams])

    def get_result_all(self, stream: WatchedStream) -> Any:
        return self.real.get_result_all(stream.real)


class WatchedStream:
    def __init__(self, real: Any) -> None:
        self.real = real
        self.fed: list[Samples] = []

    def accept_waveform(self, rate_hz: int, samples: Samples) -> None:
        assert rate_hz == SAMPLE_RATE
        self.fed.append(samples)
        self.real.accept_waveform(rate_hz, samples)

    def input_finished(self) -> None:
        self.real.input_finished()


class Speech:
    """A stretch of speech that is decoded as it grows."""

    def __init__(self, samples: Samples, name: str = "item_1", piece: int = 0, **options: Any) -> None:
        self.samples, self.name, self.piece = samples, name, piece
        self.options = Transcription(model="sherpa/tiny", **options)
        self.settled = ""
        self.told: list[str] = []

    def job(self, seconds: float | None = None) -> Decode:
        """So much of it, or the final one."""
        size = self.samples.size if seconds is None else round(seconds * SAMPLE_RATE)
        stage = Stage.FINAL if seconds is None else Stage.SPEAKING
        return Decode(self.name, self.options, self.samples[:size], stage, self.piece, self.settled)

    def take(self, hypothesis: Hypothesis | EngineError) -> None:
        assert isinstance(hypothesis, Hypothesis)
        self.told.append("".join(token.text for token in hypothesis.committed))
        self.settled += self.told[-1]

    @property
    def steps(self) -> list[float]:
        """Lengths in seconds at which it is decoded while it goes on."""
        return list(np.arange(STEP_S, self.samples.size / SAMPLE_RATE, STEP_S))


def run(engine: StreamingEngine, *speeches: Speech) -> list[str]:
    """Decode streams of one length together, step by step to their ends."""
    for seconds in speeches[0].steps:
        results = engine.decode([speech.job(seconds) for speech in speeches])
        for speech, hypothesis in zip(speeches, results, strict=True):
            speech.take(hypothesis)
    for speech, hypothesis in zip(speeches, engine.decode([speech.job() for speech in speeches]), strict=True):
        speech.take(hypothesis)
    return [speech.settled for speech in speeches]


def sounds(*names: str) -> Samples:
    """A word's worth of audio for each of `low` and `high`."""
    return np.concatenate([tone(WORD_S, LOW_HZ if name == "low" else HIGH_HZ) for name in names])


MIXED = ("low", "high", "high", "low", "low", "low", "high", "low", "high", "high", "low", "high")


# Streaming


def test_words_are_told_as_they_are_said_and_never_taken_back(engine: StreamingEngine) -> None:
    speech = Speech(sounds(*MIXED))
    assert run(engine, speech) == [words(*MIXED)]
    assert speech.told[-1].count(" ") <= 2, "the rest was told before the end"
    # A word is told as soon as its chunk is heard.
    for seconds, told in zip(speech.steps, np.cumsum([text.count(" ") for text in speech.told]), strict=False):
        assert told >= (seconds - CHUNK_S - 0.1) // WORD_S - 1


def test_the_whole_at_once_is_the_same(engine: StreamingEngine) -> None:
    speech = Speech(sounds(*MIXED), "item_whole")
    speech.take(engine.decode([speech.job()])[0])
    assert speech.settled == words(*MIXED)


def test_all_audio_is_fed_once_and_then_silence(folder: Path) -> None:
    recognizer = Watched(folder)
    engine = StreamingEngine("sherpa/tiny", recognizer)
    recognizer.streams.clear()
    recognizer.batches.clear()
    speech = Speech(sounds(*MIXED))
    run(engine, speech)
    (stream,) = recognizer.streams
    *audio, tail = stream.fed
    np.testing.assert_array_equal(np.concatenate(audio), speech.samples)
    assert not tail.any()
    # Each chunk goes through the networks once.
    chunks = (speech.samples.size + tail.size) / SAMPLE_RATE / CHUNK_S
    assert chunks - 1.5 <= len(recognizer.batches) <= chunks
    assert not engine._streams


def test_streams_go_through_the_networks_together_and_do_not_mix(folder: Path) -> None:
    recognizer = Watched(folder)
    engine = StreamingEngine("sherpa/tiny", recognizer)
    recognizer.batches.clear()
    texts = [MIXED, ("low",) * len(MIXED), MIXED[::-1]]
    speeches = [Speech(sounds(*names), f"item_{number}") for number, names in enumerate(texts)]
    assert run(engine, *speeches) == [words(*names) for names in texts]
    assert set(recognizer.batches) == {3}


def test_a_model_that_takes_one_stream_at_a_time_is_given_one(folder: Path) -> None:
    recognizer = Watched(folder)
    recognizer.takes_several = False
    engine = StreamingEngine("sherpa/tiny", recognizer)
    recognizer.batches.clear()
    texts = [MIXED, MIXED[::-1]]
    speeches = [Speech(sounds(*names), f"item_{number}") for number, names in enumerate(texts)]
    assert run(engine, *speeches) == [words(*names) for names in texts]
    assert set(recognizer.batches) == {1}


def test_a_model_that_was_exported_for_one_stream_is_found_out(tmp_path: Path) -> None:
    path = tiny_transducer.build(tmp_path) / "encoder-tiny.onnx"
    model = onnx.load(path)
    for end in [*model.graph.input, *model.graph.output]:
        for size in end.type.tensor_type.shape.dim:
            if size.dim_param == "N":
                size.dim_value = 1
    onnx.save(model, path)
    engine = load_engine(spec(tmp_path), 1)
    assert isinstance(engine, StreamingEngine)
    speeches = [Speech(sounds(*MIXED), f"item_{number}") for number in range(2)]
    assert run(engine, *speeches) == [words(*MIXED)] * 2


def test_a_model_that_decodes_nothing_is_an_error(folder: Path) -> None:
    recognizer = Watched(folder)
    recognizer.fails = True
    with pytest.raises(EngineError, match=r"sherpa/tiny failed: Out of order\."):
        StreamingEngine("sherpa/tiny", recognizer)


def test_streams_that_begin_at_different_times_do_not_mix(engine: StreamingEngine) -> None:
    early, late = Speech(sounds(*MIXED), "item_early"), Speech(sounds(*MIXED[::-1]), "item_late")
    for number, seconds in enumerate(early.steps):
        batch = [early] if number < 6 else [late, early]
        jobs = [early.job(seconds) if speech is early else late.job(seconds - 5 * STEP_S) for speech in batch]
        for speech, hypothesis in zip(batch, engine.decode(jobs), strict=True):
            speech.take(hypothesis)
    for speech in (early, late):
        speech.take(engine.decode([speech.job()])[0])
    assert [early.settled, late.settled] == [words(*MIXED), words(*MIXED[::-1])]


def test_each_stretch_begins_anew(engine: StreamingEngine) -> None:
    for piece in range(2):
        assert run(engine, Speech(sounds(*MIXED), piece=piece)) == [words(*MIXED)]


def test_the_last_word_is_told_at_the_end(engine: StreamingEngine) -> None:
    """However the length fits the chunks, what is said last goes through the networks."""
    for more_s in np.arange(0, CHUNK_S, 0.05):
        audio = np.concatenate([tone(more_s, LOW_HZ, 0.0), sounds("low", "high", "low")])
        (text,) = run(engine, Speech(audio, f"item_{more_s}"))
        assert text == words("low", "high", "low")


# Models of other forms


@pytest.fixture(params=["transducer", "nemo_ctc"])
def other(request: pytest.FixtureRequest, nemo: StreamingEngine, tmp_path: Path) -> StreamingEngine:
    if request.param == "transducer":
        return nemo
    loaded = load_engine(spec(tiny_transducer.build_ctc(tmp_path), kind="nemo_ctc"), 1)
    assert isinstance(loaded, StreamingEngine)
    return loaded


def test_other_models_stream_together_too(other: StreamingEngine) -> None:
    texts = [MIXED, ("low",) * len(MIXED), MIXED[::-1]]
    speeches = [Speech(sounds(*names), f"item_{number}") for number, names in enumerate(texts)]
    assert run(other, *speeches) == [words(*names) for names in texts]
    assert all(speech.told[-1].count(" ") <= 2 for speech in speeches), "the rest was told before the end"
    assert not other._streams


def test_other_models_lose_nothing_with_their_state(other: StreamingEngine) -> None:
    speech = Speech(sounds(*MIXED))
    for seconds in speech.steps:
        speech.take(other.decode([speech.job(seconds)])[0])
        other._streams.clear()
    speech.take(other.decode([speech.job()])[0])
    assert speech.settled == words(*MIXED)


def test_each_stream_has_a_language_of_its_own(nemo: StreamingEngine) -> None:
    """The model takes low for high in German."""
    languages = [None, "de", "en", "de-DE"]
    speeches = [Speech(sounds(*MIXED), f"item_{language}", language=language) for language in languages]
    swapped = words(*("high" if name == "low" else "low" for name in MIXED))
    assert run(nemo, *speeches) == [words(*MIXED), swapped, words(*MIXED), swapped]


# What is kept is a cache


@pytest.mark.parametrize("at", [0.5, 1.0, 2.0, 3.0])
def test_a_stream_that_was_lost_is_fed_again_from_its_beginning(folder: Path, at: float) -> None:
    speech = Speech(sounds(*MIXED))
    engines = [load_engine(spec(folder), 1) for _ in range(2)]
    for seconds in speech.steps:
        speech.take(engines[int(seconds > at)].decode([speech.job(seconds)])[0])
    speech.take(engines[1].decode([speech.job()])[0])
    assert speech.settled == words(*MIXED)


def test_more_streams_than_are_kept_cost_only_time(engine: StreamingEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sherpa_streaming, "MAX_STREAMS", 1)
    speeches = [Speech(sounds(*MIXED), f"item_{number}") for number in range(3)]
    assert run(engine, *speeches) == [words(*MIXED)] * 3
    engine.decode([Speech(sounds(*MIXED), f"item_{number}").job(1.0) for number in range(3)])
    assert len(engine._streams) == 1


def test_streams_that_were_given_up_are_let_go(folder: Path) -> None:
    now_s = 0.0
    engine = StreamingEngine("sherpa/tiny", Watched(folder), clock=lambda: now_s)
    given_up, going_on = Speech(sounds(*MIXED), "item_1"), Speech(sounds(*MIXED), "item_2")
    engine.decode([given_up.job(1.0), going_on.job(1.0)])
    now_s = IDLE_S
    going_on.take(engine.decode([going_on.job(2.0)])[0])
    assert len(engine._streams) == 2
    now_s += 1
    going_on.take(engine.decode([going_on.job(3.0)])[0])
    assert [name for name, _ in engine._streams] == ["item_2"]


@pytest.mark.parametrize(
    ("settled", "rest"),
    [
        ("", " one-low two-high three-high"),
        (" one-low two", "-high three-high"),
        (" one-low two-hi", "gh three-high"),
        (" one-low to-high", " three-high"),
        (" won-low two-high three", ""),
        (" one-low two-low", " three-high"),
        (" one", "-low two-high three-high"),
        (" one-low two-high three-high four", ""),
    ],
)
def test_text_goes_on_after_what_was_told(engine: StreamingEngine, settled: str, rest: str) -> None:
    speech = Speech(sounds(*MIXED[:3]))
    speech.settled = settled
    (hypothesis,) = engine.decode([speech.job()])
    assert "".join(token.text for token in hypothesis.committed) == rest


def test_a_failure_leaves_nothing_behind(folder: Path) -> None:
    recognizer = Watched(folder)
    engine = StreamingEngine("sherpa/tiny", recognizer)
    speech = Speech(sounds(*MIXED))
    speech.take(engine.decode([speech.job(1.0)])[0])
    recognizer.fails = True
    with pytest.raises(EngineError, match=r"sherpa/tiny failed: Out of order\."):
        engine.decode([speech.job(2.0)])
    recognizer.fails = False
    speech.take(engine.decode([speech.job(2.0)])[0])
    speech.take(engine.decode([speech.job()])[0])
    assert speech.settled == words(*MIXED)


# Results


def test_probabilities_are_the_models_own(engine: StreamingEngine) -> None:
    (hypothesis,) = engine.decode([Speech(between(2.0, lowness=1)).job()])
    number, sound = hypothesis.committed[:2]
    assert number.logprob == pytest.approx(0, abs=1e-3)
    assert -1.5 < sound.logprob < -0.1


@pytest.mark.parametrize(
    ("tokens", "text", "logprobs", "expected"),
    [
        (["▁Hel", "lo"], "Hello", [-0.1, -0.2], [("▁Hel".replace("▁", " "), -0.1), ("lo", -0.2)]),
        ([" Hel", "lo"], " Hello", [], [(" Hel", -0.5), ("lo", -0.5)]),
        ([" M", "<0xC3>", "<0xA4>", "rz"], " März", [-0.1] * 4, [(" M", -0.1), ("", -0.1), ("ä", -0.1), ("rz", -0.1)]),
        ([" M", "<0xC3>"], " M", [-0.1] * 2, [(" M", -0.1), ("", -0.1)]),
        ([" twen", "ty"], "20", [-0.1] * 2, [("2", -0.5), ("0", -0.5)]),
        (["ƌĩĽ", "ƌĩł"], "你 好", [-0.1] * 2, [("你", -0.5), (" 好", -0.5)]),
    ],
)
def test_tokens_are_text_whatever_alphabet_a_model_has(
    tokens: list[str], text: str, logprobs: list[float], expected: list
) -> None:
    times = [0.04 * number for number in range(len(tokens))]
    found = _tokens(SimpleNamespace(tokens=tokens, text=text, ys_probs=logprobs, timestamps=times), 16_000)
    assert [(token.text, token.logprob) for token in found] == expected


def test_tokens_have_their_times(engine: StreamingEngine) -> None:
    """From the beginning of the stretch, whenever they are told; a pause belongs to no word."""
    pause_s = 1.28
    speech = Speech(np.concatenate([sounds("low", "high"), tone(pause_s, LOW_HZ, 0.0), sounds("low")]))
    found = []
    for seconds in [*speech.steps, None]:
        (hypothesis,) = engine.decode([speech.job(seconds)])
        speech.take(hypothesis)
        assert isinstance(hypothesis, Hypothesis)
        found += hypothesis.committed
    assert [token.text for token in found[::2]] == [" one", " two", " three"]
    for token, middle_s in zip(found[::2], (0.5 * WORD_S, 1.5 * WORD_S, 2.5 * WORD_S + pause_s), strict=True):
        assert token.span is not None
        assert token.span[0] / SAMPLE_RATE == pytest.approx(middle_s, abs=1.5 * FRAME_S)
    spans = [token.span for token in found]
    assert all(begin <= end for begin, end in spans)
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(spans))
    assert spans[3][1] < (2 * WORD_S + 0.2) * SAMPLE_RATE
    assert spans[-1][1] <= speech.samples.size


def test_spans_of_tokens_rise_also_where_the_times_do_not() -> None:
    assert emission_spans([0.0, 0.5, 0.4], SAMPLE_RATE) == [(0, 3200), (8000, 8000), (8000, 11200)]


def test_letters_of_a_text_that_was_changed_have_no_times() -> None:
    result = SimpleNamespace(tokens=[" twenty"], text="20", ys_probs=[-0.1], timestamps=[0.0])
    assert [token.span for token in _tokens(result, 16_000)] == [None, None]


def test_a_language_that_is_the_only_one_is_told(folder: Path) -> None:
    for languages, expected in ((["de"], "de"), (["de", "en"], None)):
        engine = load_engine(spec(folder, languages=languages), 1)
        (hypothesis,) = engine.decode([Speech(sounds(*MIXED), language="de").job()])
        assert isinstance(hypothesis, Hypothesis)
        assert hypothesis.language == expected


def test_many_streams_are_decoded_together_unless_something_else_is_set(folder: Path) -> None:
    for values, batch in (({}, 16), ({"max_batch": 3}, 3), ({"streaming": False}, 1)):
        models = {"sherpa/tiny": {"path": str(folder), "kind": "transducer", "streaming": True} | values}
        info = catalog(Settings(models=models)).directory.find("sherpa/tiny")
        assert info is not None
        assert info.max_batch == batch


# Keywords


KEYWORDS = {"keywords": ["one-high", "Four-HIGH", "quartz", "七", "o"]}


def test_keywords_decide_where_the_sound_leaves_it_open(beam: StreamingEngine) -> None:
    audio = between(5 * WORD_S, lowness=1)
    assert run(beam, Speech(audio)) == [words("low", "low", "low", "low", "low")]
    assert run(beam, Speech(audio, **KEYWORDS)) == [words("high", "low", "low", "high", "low")]


def test_nemos_models_take_keywords_too(nemo_folder: Path) -> None:
    engine = load_engine(spec(nemo_folder, options=BEAM, files={"bpe_vocab": "bpe.vocab"}), 1)
    assert isinstance(engine, StreamingEngine)
    audio = between(5 * WORD_S, lowness=1)
    assert run(engine, Speech(audio)) == [words("low", "low", "low", "low", "low")]
    assert run(engine, Speech(audio, **KEYWORDS)) == [words("high", "low", "low", "high", "low")]


def test_keywords_change_nothing_that_is_clear(beam: StreamingEngine) -> None:
    assert run(beam, Speech(sounds(*MIXED), **KEYWORDS)) == [words(*MIXED)]


def test_each_stream_has_keywords_of_its_own(beam: StreamingEngine) -> None:
    audio = between(5 * WORD_S, lowness=1)
    texts = run(beam, Speech(audio, "item_1"), Speech(audio, "item_2", **KEYWORDS), Speech(audio, "item_3"))
    plain = words("low", "low", "low", "low", "low")
    assert texts == [plain, words("high", "low", "low", "high", "low"), plain]


def test_other_keywords_amid_a_stretch_hold_for_what_is_not_told(beam: StreamingEngine) -> None:
    audio = between(5 * WORD_S, lowness=1)
    speech = Speech(audio, delay="minimal")
    for seconds in (0.5, 1.0):
        speech.take(beam.decode([speech.job(seconds)])[0])
    assert speech.settled.startswith(" one-low")
    assert "four" not in speech.settled
    speech.options = speech.options.model_copy(update=KEYWORDS)
    speech.take(beam.decode([speech.job()])[0])
    assert speech.settled == words("low", "low", "low", "high", "low")


def test_what_a_search_takes_back_was_not_told(beam: StreamingEngine) -> None:
    """A keyword that begins well and then is not what was said: the search takes its first word back."""
    audio = np.concatenate([between(WORD_S, lowness=-1), sounds("high", "low", "low", "low", "low", "low")])
    keywords = {"keywords": ["one-low two-low"]}
    expected = words("high", "high", "low", "low", "low", "low", "low")
    seen = []
    speech = Speech(audio, **keywords)
    for seconds in speech.steps:
        (hypothesis,) = beam.decode([speech.job(seconds)])
        assert isinstance(hypothesis, Hypothesis)
        speech.take(hypothesis)
        seen.append(speech.settled + "".join(token.text for token in hypothesis.tentative))
    assert any(text.startswith(" one-low") for text in seen)
    speech.take(beam.decode([speech.job()])[0])
    assert speech.settled == expected
    assert speech.told[:-1] != [""] * len(speech.steps), "some of it is told while it goes on"


def test_less_delay_tells_what_a_search_finds_sooner(beam: StreamingEngine) -> None:
    firsts = []
    for delay in ("minimal", "medium", "xhigh"):
        speech = Speech(sounds(*MIXED), delay=delay)
        assert run(beam, speech) == [words(*MIXED)]
        firsts.append(next(index for index, text in enumerate(speech.told) if text))
    assert firsts == sorted(set(firsts))


def test_keywords_have_no_effect_where_the_search_takes_none(engine: StreamingEngine) -> None:
    audio = between(5 * WORD_S, lowness=1)
    assert run(engine, Speech(audio, **KEYWORDS)) == [words("low", "low", "low", "low", "low")]


# Settings


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"kind": "nonsense"}, "no streaming kind 'nonsense', but .*transducer"),
        ({"kind": "zipformer2_ctc"}, "no file for its 'model'"),
        ({"kind": "transducer", "options": {"nonsense": 1}}, "can't be loaded from .*nonsense"),
        ({"options": {"modeling_unit": "bpe"}}, "`modeling_unit` is for keywords, and those need `decoding_method"),
        ({"options": BEAM}, "keywords in 'bpe' need its `bpe_vocab`"),
        ({"options": BEAM | {"modeling_unit": "letters"}}, "cjkchar, bpe, cjkchar\\+bpe, not 'letters'"),
        ({"options": BEAM, "files": {"bpe_vocab": "lost.vocab"}}, "no file for its 'bpe_vocab'"),
    ],
)
def test_what_cannot_be_loaded_is_a_clear_error(folder: Path, values: dict, told: str) -> None:
    with pytest.raises(EngineError, match=f"sherpa/tiny.*{told}"):
        load_engine(spec(folder, **values), 1)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, False),
        ({"options": {"decoding_method": "greedy_search", "blank_penalty": 0.5}}, False),
        ({"options": BEAM}, True),
        ({"options": {"rule_fsts": "/models/numbers.fst"}}, True),
        ({"files": {"rule_fsts": "numbers.fst"}}, True),
    ],
)
def test_only_a_search_or_rules_may_take_text_back(values: dict, expected: bool) -> None:
    settings = SherpaSettings(path=Path("/models/any"), kind="transducer", streaming=True, **values)
    assert _may_revise(settings) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, True),
        ({"kind": "zipformer2_ctc"}, True),
        ({"kind": "nemo_ctc"}, False),
        ({"kind": "paraformer"}, False),
        ({"kind": "nemo_ctc", "streaming": False}, True),
        ({"kind": "moonshine_v2", "streaming": False}, False),
        ({"files": {"rule_fsts": "numbers.fst"}}, False),
    ],
)
def test_times_of_words_are_offered_where_they_are_told_right(folder: Path, values: dict, expected: bool) -> None:
    model = {"path": str(folder), "kind": "transducer", "streaming": True} | values
    assert catalog(Settings(models={"sherpa/tiny": model})).directory.has_word_times("sherpa/tiny") == expected
