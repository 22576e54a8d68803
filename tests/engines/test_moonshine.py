"""The embedded model on real speech, and the pieces of its decoder without a model."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings
import wave
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soxr

from auricle.audio.formats import SAMPLE_RATE, Samples
from auricle.engines.base import EngineError, Transcription
from auricle.engines.moonshine import (
    END_ID,
    MAX_DRAFT_TOKENS,
    START_ID,
    Draft,
    Logits,
    MoonshineModel,
    Vocabulary,
    accepted_tokens,
    decode_greedily,
    embedded_folder,
    length_without_loop,
)

OPTIONS = Transcription(model="moonshine-tiny-en")
SPEECH = Path(__file__).resolve().parents[3] / "shared" / "audio"
VOCABULARY_SIZE = 64
SENTENCE = [10, 11, 12, 13, 14, 15, 16, 17, 18, 19]


# The pieces, without a model


def pack(*pieces: bytes) -> bytes:
    """The pieces as a `tokenizer.bin`."""
    return b"".join(
        (bytes([len(piece)]) if len(piece) < 128 else bytes([len(piece) % 128 + 128, len(piece) // 128])) + piece
        for piece in pieces
    )


def test_vocabulary_reads_short_and_long_lengths() -> None:
    vocabulary = Vocabulary(pack(b"<unk>", b"<s>", b"</s>", b"a" * 127, b"b" * 128, b"c" * 300))
    assert [token.text for token in vocabulary.tokens([3, 4, 5], [0, 0, 0])] == ["a" * 127, "b" * 128, "c" * 300]


@pytest.mark.parametrize("damaged", [b"\x05abc", b"\x85", b"\x03abc\x01"])
def test_vocabulary_refuses_a_damaged_file(damaged: bytes) -> None:
    with pytest.raises(EngineError):
        Vocabulary(damaged)


def test_vocabulary_joins_bytes_and_drops_special_tokens() -> None:
    vocabulary = Vocabulary(
        pack(
            b"<unk>",
            b"<s>",
            b"</s>",
            b"\xe2",
            b"\x99",
            b"\xaa",
            "▁caf".encode(),
            b"<<ST_7>>",
            b"",
            "é▁".encode(),
            b"<s",
        )
    )
    tokens = vocabulary.tokens([1, 6, 7, 9, 8, 3, 4, 5, 10, 0, 2], [-1, -2, -4, -8, 0, -16, -32, -64, -128, -1, -1])
    assert [(token.text, token.logprob) for token in tokens] == [(" caf", -2), ("é ", -8), ("♪", -112), ("<s", -128)]


def test_vocabulary_leaves_out_bytes_that_form_no_character() -> None:
    vocabulary = Vocabulary(pack(b"<unk>", b"<s>", b"</s>", b"\xe2", b"\x99", b"a"))
    assert [token.text for token in vocabulary.tokens([4, 3, 4, 5, 3], [0] * 5)] == ["a"]


@pytest.mark.parametrize(
    ("ids", "kept"),
    [
        ([], 0),
        ([5], 1),
        ([5] * 7, 7),
        ([5] * 8, 1),
        ([9, *[5] * 8], 2),
        ([1, 2] * 3, 6),
        ([1, 2] * 4, 2),
        ([7, 8, *[1, 2, 3] * 4], 5),
        ([*range(6)] * 2, 12),
        ([9, *[*range(6)] * 3], 7),
        ([*[*range(6)] * 3, 9], 19),
        ([*range(24)] * 3, 24),
        ([*range(25)] * 3, 75),
    ],
)
def test_a_loop_at_the_end_is_kept_once(ids: list[int], kept: int) -> None:
    assert length_without_loop(ids) == kept


class Script:
    """A predictor that says `sentence` and counts what it is fed."""

    def __init__(self, sentence: Sequence[int]) -> None:
        self._next = [*sentence, END_ID]
        self.fed: list[int] = []
        self.calls = 0

    def feed(self, ids: Sequence[int]) -> Logits:
        self.calls += 1
        rows = np.zeros((len(ids), VOCABULARY_SIZE), np.float32)
        for row, token_id in zip(rows, ids, strict=True):
            self.fed.append(token_id)
            # A token that does not belong here spoils all that follow, until it is rewound.
            sound = self.fed == [START_ID, *self._next[: len(self.fed) - 1]]
            row[self._next[len(self.fed) - 1] if sound else VOCABULARY_SIZE - 1] = 5
        return rows

    def rewind(self, tokens: int) -> None:
        del self.fed[len(self.fed) - tokens :]


@pytest.mark.parametrize(
    ("draft", "calls"),
    [
        ([], 11),
        (SENTENCE, 2),
        (SENTENCE[:5], 7),
        ([*SENTENCE, 20, 21], 2),
        ([10, 11, 12, 40, 14, 15, 16, 17, 18, 19], 5),  # wrong in one place: taken up again two tokens later
        ([10, 11, 12, 14, 15, 16, 17, 18, 19], 4),  # one left out
        ([10, 11, 12, 40, 41, 13, 14, 15, 16, 17, 18, 19], 4),  # two too many
        ([30, 31, 32, 33], 11),
    ],
)
def test_a_draft_changes_the_calls_but_not_the_result(draft: list[int], calls: int) -> None:
    script = Script(SENTENCE)
    assert decode_greedily(script, 50, draft).ids == SENTENCE
    assert script.calls == calls
    assert script.fed == [START_ID, *SENTENCE]


def test_a_long_draft_is_checked_in_parts() -> None:
    sentence = [3 + index % 50 + index // 50 for index in range(2 * MAX_DRAFT_TOKENS + 4)]
    script = Script(sentence)
    assert decode_greedily(script, 100, sentence).ids == sentence
    assert script.calls == 4


@pytest.mark.parametrize("draft", [[], SENTENCE])
def test_decoding_stops_at_the_token_limit(draft: list[int]) -> None:
    assert decode_greedily(Script(SENTENCE), 4, draft).ids == SENTENCE[:4]


@pytest.mark.parametrize("draft", [[], [7, 8, 9] * 20])
def test_decoding_stops_in_a_loop(draft: list[int]) -> None:
    script = Script([5, *[7, 8, 9] * 20])
    greedy = decode_greedily(script, 60, [5, *draft] if draft else [])
    assert greedy.ids == [5, 7, 8, 9]
    assert len(greedy.logprobs) == 4


def test_log_probabilities_are_natural_and_normalised() -> None:
    greedy = decode_greedily(Script([10]), 50)
    expected = 5 - np.log(np.exp(5) + VOCABULARY_SIZE - 1)
    assert greedy.logprobs == pytest.approx([expected], abs=1e-5)


def test_accepted_tokens_counts_the_agreeing_prefix() -> None:
    rows = np.eye(6, dtype=np.float32)[[3, 4, 5, 2]]
    assert accepted_tokens(rows, [3, 4, 5]) == 3
    assert accepted_tokens(rows, [3, 0, 5]) == 1
    assert accepted_tokens(rows, []) == 0


def test_a_draft_is_silent_until_it_finds_its_place() -> None:
    draft = Draft([1, 2, 3, 4, 5])
    assert draft.after([1]) == (2, 3, 4, 5)
    assert draft.after([1, 9]) == ()
    assert draft.after([1, 9, 3]) == ()
    assert draft.after([1, 9, 3, 4]) == (5,)


def test_missing_files_are_an_engine_error(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"encoder_model\.ort is missing"):
        MoonshineModel(tmp_path).warm_up()


def test_a_damaged_network_is_an_engine_error(tmp_path: Path) -> None:
    (tmp_path / "encoder_model.ort").write_bytes(b"no network" * 100)
    with pytest.raises(EngineError, match="failed"):
        MoonshineModel(tmp_path).load()


def test_finding_the_model_imports_neither_its_package_nor_onnxruntime() -> None:
    program = (
        "import sys; from auricle.engines.moonshine import MoonshineModel; MoonshineModel.embedded();"
        "from auricle.engines.silero import SileroDetector; SileroDetector.embedded();"
        "sys.exit(','.join({'moonshine_voice', 'faster_whisper', 'onnxruntime'} & sys.modules.keys()) or 0)"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False).stderr == ""


# The model, on real speech


@pytest.fixture(scope="module")
def model() -> MoonshineModel:
    model = MoonshineModel.embedded()
    model.warm_up()
    return model


@pytest.fixture(scope="module")
def two_cities() -> Samples:
    """44 s of reading, 16 kHz."""
    with wave.open(str(embedded_folder().parent / "two_cities.wav")) as file:
        assert file.getnchannels() == 1
        pcm = np.frombuffer(file.readframes(file.getnframes()), np.int16)
        samples: Samples = soxr.resample(pcm.astype(np.float32) / 32768, file.getframerate(), SAMPLE_RATE)
    return samples


def text_of(model: MoonshineModel, samples: Samples) -> str:
    return "".join(token.text for token in model.transcribe([samples], [OPTIONS])[0])


def test_reads_the_opening_of_a_tale_of_two_cities(model: MoonshineModel, two_cities: Samples) -> None:
    (tokens,) = model.transcribe([two_cities[: 12 * SAMPLE_RATE]], [OPTIONS])
    words = re.findall("[a-z]+", "".join(token.text for token in tokens).lower())
    assert tokens[0].text.startswith(" ")
    assert " ".join(words).startswith("it was the best of times it was the worst of times it was the age of wisdom")
    assert all(-20 < token.logprob <= 0 for token in tokens)
    assert sum(token.logprob for token in tokens) / len(tokens) > -0.5


def test_text_does_not_depend_on_neighbours(model: MoonshineModel, two_cities: Samples) -> None:
    bounds_s = [(0, 3), (3, 9.5), (9.5, 11), (12, 20), (20, 20.4), (21, 26)]
    utterances = [two_cities[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)] for start, end in bounds_s]
    together = model.transcribe(utterances, [OPTIONS] * len(utterances))
    assert together == [model.transcribe([samples], [OPTIONS])[0] for samples in utterances]
    assert model.transcribe(utterances[::-1], [OPTIONS] * len(utterances)) == together[::-1]


def test_a_draft_gives_the_text_of_plain_decoding(model: MoonshineModel, two_cities: Samples) -> None:
    samples = two_cities[: 8 * SAMPLE_RATE]
    plain = model.decode(samples)
    wrong = [*plain.ids[:4], 500, *plain.ids[5:]]
    for draft_ids in (plain.ids, plain.ids[:7], wrong, model.decode(samples[: 6 * SAMPLE_RATE]).ids, [500] * 40):
        drafted = model.decode(samples, draft_ids)
        assert drafted.ids == plain.ids
        assert drafted.logprobs == pytest.approx(plain.logprobs, abs=0.5)


@pytest.mark.parametrize("length", [1, 400, 894, 895, 896, 1600, 8000])
def test_short_audio_gives_little_text(model: MoonshineModel, two_cities: Samples, length: int) -> None:
    assert len(model.decode(two_cities[SAMPLE_RATE : SAMPLE_RATE + length]).ids) <= 7


def test_no_samples_give_no_tokens(model: MoonshineModel, two_cities: Samples) -> None:
    empty, spoken = model.transcribe([two_cities[:0], two_cities[: 2 * SAMPLE_RATE]], [OPTIONS, OPTIONS])
    assert empty == ()
    assert spoken != ()


def test_each_utterance_needs_its_options(model: MoonshineModel, two_cities: Samples) -> None:
    with pytest.raises(ValueError, match="1 utterances, but 0 options"):
        model.transcribe([two_cities], [])


def clips(*ids: str) -> list[tuple[Samples, str]]:
    """Clips of ../shared/audio with their texts."""
    if not (SPEECH / "manifest.jsonl").exists():
        pytest.skip(f"needs the speech in {SPEECH}")
    import av

    found = {}
    for line in (SPEECH / "manifest.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if entry["id"] in ids:
            with av.open(SPEECH / entry["file"]) as file:
                rate = file.streams.audio[0].rate
                pcm = np.concatenate([frame.to_ndarray().ravel() for frame in file.decode(audio=0)])
            samples = soxr.resample(pcm.astype(np.float32) / 32768, rate, SAMPLE_RATE)
            found[entry["id"]] = (samples, entry["text"])
    return [found[clip_id] for clip_id in ids]


def test_word_error_rate_on_real_clips(model: MoonshineModel) -> None:
    import jiwer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # its source has faulty escapes
        warnings.simplefilter("ignore", DeprecationWarning)
        from whisper_normalizer.english import EnglishTextNormalizer

    normalise = EnglishTextNormalizer()
    chosen = clips(
        "lsto-367-130732-0000", "lsto-1688-142285-0005", "lsto-3005-163389-0002", "lsto-3080-5032-0003", "lj-LJ001-0014"
    )
    heard = [normalise(text_of(model, samples)) for samples, _ in chosen]
    assert jiwer.wer([normalise(text) for _, text in chosen], heard) < 0.15


def test_noise_does_not_make_it_loop(model: MoonshineModel) -> None:
    for samples, _ in clips("noise-white", "noise-doing_the_dishes", "music-vibe_ace"):
        greedy = model.decode(samples[: 8 * SAMPLE_RATE])
        assert len(greedy.ids) < 30
