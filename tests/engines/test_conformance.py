"""What every engine must keep, whatever its model: the promises of `Engine` in `engines/base.py`."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tiny_transducer
import tiny_whisper
from clips import sherpa_moonshine, two_cities

from auricle.audio.formats import SAMPLE_RATE, Samples
from auricle.engines.base import (
    Align,
    Aligner,
    Alignment,
    Decode,
    Engine,
    EngineError,
    Hypothesis,
    Stage,
    Token,
    Transcription,
    aligned,
)
from auricle.engines.registry import catalog, load_engine
from auricle.settings import Settings

FIRST, SECOND = two_cities()[: 5 * SAMPLE_RATE], two_cities()[20 * SAMPLE_RATE : 26 * SAMPLE_RATE]
"""Two stretches of speech with different texts for the embedded model. The small Whisper says the same to both."""
LOUD = np.clip(FIRST * 30, -1, 1)

NAMES = (
    "moonshine/tiny-en",
    "sherpa/moonshine",
    "sherpa/tiny",
    "sherpa/tiny-nemo",
    "upstream/moonshine/tiny-en",
    "whisper/mini",
)


@pytest.fixture(scope="module", params=NAMES)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("models") / "mini"
    if request.param == "whisper/mini":
        tiny_whisper.build(folder)
    if request.param == "sherpa/moonshine":
        sherpa_moonshine(folder)
    if request.param == "sherpa/tiny":
        tiny_transducer.build(folder)
    if request.param == "sherpa/tiny-nemo":
        tiny_transducer.build_nemo(folder)
    if request.param.startswith("sherpa/"):
        pytest.importorskip("sherpa_onnx")
    sherpa = {"path": str(folder), "languages": ["en"]}
    models = {
        "whisper/mini": {"path": str(folder), "device": "cpu"},
        "sherpa/moonshine": sherpa | {"kind": "moonshine_v2"},
        "sherpa/tiny": sherpa | {"kind": "transducer", "streaming": True},
        "sherpa/tiny-nemo": sherpa | {"kind": "transducer", "streaming": True},
    }
    if request.param.startswith("upstream/"):
        server = request.getfixturevalue("server")
        models[request.param] = {"base_url": server.base_url, "logprobs": True, "languages": ["en"]}
    return load_engine(catalog(Settings(models=models)).spec(request.param), 1)


def text_of(hypothesis: Hypothesis) -> str:
    return "".join(token.text for token in hypothesis.committed)


class Stream:
    """A stretch of speech that grows, as a session would decode it."""

    _numbers = itertools.count()

    def __init__(self, samples: Samples, **options: object) -> None:
        self.name = f"item_{next(self._numbers)}"
        self.samples = samples
        self.options = Transcription.model_validate({"model": "any"} | options)
        self.settled = ""

    def job(self, seconds: float | None = None) -> Decode:
        """So much of it, or the final one."""
        size = self.samples.size if seconds is None else round(seconds * SAMPLE_RATE)
        stage = Stage.FINAL if seconds is None else Stage.SPEAKING
        return Decode(self.name, self.options, self.samples[:size], stage, settled=self.settled)

    def take(self, hypothesis: Hypothesis) -> None:
        self.settled += text_of(hypothesis)


def run(engine: Engine, *streams: Stream) -> list[str]:
    """Decode them together, step by step, to their ends."""
    for step in range(1, 9):
        jobs = [stream.job(step * 0.6) for stream in streams]
        for stream, hypothesis in zip(streams, engine.decode(jobs), strict=True):
            stream.take(hypothesis)
    for stream, hypothesis in zip(streams, engine.decode([stream.job() for stream in streams]), strict=True):
        assert hypothesis.tentative == ()
        stream.take(hypothesis)
    return [stream.settled for stream in streams]


def test_text_is_told_while_it_grows_and_only_grows(engine: Engine) -> None:
    """What is committed continues what was; so the whole is the sum, and some of it comes before the end."""
    stream = Stream(FIRST, delay="minimal")
    for step in range(1, 9):
        stream.take(engine.decode([stream.job(step * 0.6)])[0])
    before_the_end = stream.settled
    assert before_the_end
    stream.take(engine.decode([stream.job()])[0])
    (whole,) = engine.decode([Stream(FIRST).job()])
    assert stream.settled.startswith(before_the_end)
    assert stream.settled.lower().split()[:4] == text_of(whole).lower().split()[:4]


def test_each_job_has_one_result_in_order(engine: Engine) -> None:
    audio = [FIRST, SECOND, FIRST[:8000], LOUD]
    together = engine.decode([Stream(samples).job() for samples in audio])
    alone = [engine.decode([Stream(samples).job()])[0] for samples in audio]
    assert [text_of(hypothesis) for hypothesis in together] == [text_of(hypothesis) for hypothesis in alone]
    for one, other in zip(together, alone, strict=True):
        assert [token.logprob for token in one.committed] == pytest.approx(
            [token.logprob for token in other.committed], abs=0.05
        )


def test_streams_side_by_side_do_not_mix(engine: Engine) -> None:
    alone = [run(engine, Stream(samples))[0] for samples in (FIRST, LOUD)]
    assert run(engine, Stream(FIRST), Stream(LOUD)) == alone


@pytest.mark.parametrize("stage", [Stage.FINAL, Stage.SPEAKING])
@pytest.mark.parametrize("samples", [0, 1, 100])
def test_next_to_no_audio_is_no_failure(engine: Engine, samples: int, stage: Stage) -> None:
    job = Decode(f"item_short_{samples}_{stage}", Transcription(), np.zeros(samples, np.float32), stage)
    (hypothesis,) = engine.decode([job])
    assert isinstance(hypothesis, Hypothesis)
    if samples == 0:
        assert hypothesis.committed == hypothesis.tentative == ()


def test_no_jobs_have_no_results(engine: Engine) -> None:
    assert engine.decode([]) == []


def test_probabilities_are_logarithms(engine: Engine) -> None:
    (hypothesis,) = engine.decode([Stream(FIRST).job()])
    assert hypothesis.committed
    assert all(token.logprob <= 1e-4 for token in hypothesis.committed)


def test_times_of_words_lie_in_the_audio_in_their_order(engine: Engine, request: pytest.FixtureRequest) -> None:
    jobs = []
    for samples in (FIRST, SECOND, FIRST[:8000]):
        (hypothesis,) = engine.decode([Stream(samples).job()])
        jobs.append(Align("item_x", Transcription(), samples, hypothesis.committed))
    if isinstance(engine, Aligner) and request.node.callspec.params["engine"].startswith(("moonshine/", "whisper/")):
        together = engine.align(jobs)
    else:
        with pytest.raises(EngineError):
            aligned(engine, jobs)
        return
    assert together == [engine.align([job])[0] for job in jobs]
    for job, alignment in zip(jobs, together, strict=True):
        assert isinstance(alignment, Alignment)
        assert len(alignment.spans) == len(job.tokens)
        assert all(0 <= begin <= end <= job.samples.size for begin, end in alignment.spans)
        assert list(alignment.spans) == sorted(alignment.spans)
    assert engine.align([]) == []
    assert engine.align([Align("item_x", Transcription(), FIRST, ())]) == [Alignment(())]


def test_an_alignment_of_another_text_is_an_error_of_its_job() -> None:
    class Careless:
        def align(self, jobs):
            return [Alignment(((0, 1),)) for _ in jobs]

    one, two = [Align("item_x", Transcription(), FIRST, tuple(Token("a", 0.0) for _ in range(n))) for n in (1, 2)]
    good, bad = aligned(Careless(), [one, two])
    assert good == Alignment(((0, 1),))
    assert isinstance(bad, EngineError)


def test_the_language_is_told(engine: Engine) -> None:
    (hypothesis,) = engine.decode([Stream(FIRST).job()])
    assert hypothesis.language == "en"


def test_a_stream_that_was_forgotten_goes_on_from_its_job(engine: Engine) -> None:
    """What an engine keeps is a cache: another stream of the same audio and settled text says the rest."""
    (whole,) = engine.decode([Stream(FIRST).job()])
    stream = Stream(FIRST)
    words = text_of(whole).split(" ")
    stream.settled = " ".join(words[:3])
    (rest,) = engine.decode([stream.job()])
    assert stream.settled + text_of(rest) == text_of(whole)
