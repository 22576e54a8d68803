"""Moonshine, the embedded English model: whole utterances in, tokens out. Knows nothing of streams or sessions.

The model files (tiny-en, 27 M parameters, int8) lie in the wheel `moonshine-voice`. Only its files are used, because
its code needs PortAudio. The networks come from https://github.com/moonshine-ai/moonshine.

Each utterance is encoded and decoded alone. The encoder quantises activations with one scale per tensor, so rows of a
batch would disturb each other, and it gains nothing from them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pydantic import Field

from auricle.audio.formats import SAMPLE_RATE, Samples
from auricle.engines.base import (
    Align,
    Alignment,
    Context,
    Engine,
    EngineError,
    Family,
    ModelInfo,
    ModelSettings,
    ModelSpec,
    Progress,
    Token,
    Transcript,
    Utterance,
    Whereabouts,
)
from auricle.engines.biasing import Biasing, Logits, Said, phrases_of
from auricle.engines.hub import HubModel, in_folder
from auricle.engines.loops import length_without_loop
from auricle.engines.moonshine_aligner import ALIGNMENT_HEADS, MIN_SAMPLES, START_ID, MoonshineAligner
from auricle.engines.moonshine_graph import HEADS, build_graphs, cache_names
from auricle.engines.moonshine_vocabulary import END_ID, Vocabulary
from auricle.engines.onnx_network import engine_errors, open_network, ort_value
from auricle.engines.rolling import RollingEngine
from auricle.protocol.config import without_region

MAX_TOKENS_PER_S = 6.5
"""More tokens than this per second of audio are invented (the model authors' own limit, for English and Spanish)."""
_OTHER_MAX_TOKENS_PER_S = {"ar": 13.0, "ja": 13.0, "ko": 13.0, "uk": 8.0, "vi": 13.0, "zh": 13.0}
"""Theirs for languages whose texts take more tokens."""
EXTRA_TOKENS = 4
"""Allowed on top of that, because a short word is said faster and has its punctuation besides."""
MAX_DRAFT_TOKENS = 32
"""Draft tokens checked in one call. Bounds what a wrong draft can cost, and the memory for logits (128 KiB a token)."""

MAX_BIASINGS = 64
"""How many lists of phrases are kept ready, since making one takes tens of milliseconds."""

DRAFT_SEARCH_TOKENS = 8
"""How far ahead a draft that went wrong is searched for the place to go on."""


EMBEDDED = "moonshine/tiny-en"
PUBLISHED = (
    *("base-ar", "base-en", "base-es", "base-ja", "base-uk", "base-vi", "base-zh"),
    *("tiny-ja", "tiny-ko"),
)
"""The authors' other models, but for those that stream, which are other networks."""
_REPOSITORY = "moonshine-ai/moonshine-voice-assets"
"""Their files on the Hugging Face hub, under the paths that they have on the authors' own server."""
_FILES = ("encoder_model.ort", "decoder_model_merged.ort", "tokenizer.bin")


class MoonshineSettings(ModelSettings):
    """What can be set about one of these models."""

    path: Path | None = Field(None, description="Folder of the model's files; the embedded model needs none")
    alignment_heads: tuple[tuple[int, int], ...] = Field(
        (), description="Layers and heads of a folder's model that follow the audio; without, it has no times of words"
    )


class MoonshineFamily(Family):
    """`moonshine/…`: the embedded model, the authors' others from the Hugging Face hub, and any from folders."""

    settings = MoonshineSettings

    def info(self, spec: ModelSpec) -> ModelInfo:
        """See `Family`."""
        name, settings = spec.name_in_family, spec.settings
        if settings.path is None and spec.name != EMBEDDED and name not in PUBLISHED:
            message = f'{spec.name} needs its folder: set `path` in [models."{spec.name}"].'
            raise ValueError(f"{message} Without, there are {EMBEDDED} and {', '.join(PUBLISHED)}.")
        own = (name.rpartition("-")[2],) if name in PUBLISHED else ("en",)
        languages, max_batch = settings.languages or own, settings.max_batch or 1
        return ModelInfo(spec.name, languages, max_batch, has_word_times=bool(_heads(spec)))

    def whereabouts(self, spec: ModelSpec) -> Whereabouts:
        """See `Family`."""
        try:
            return in_folder(_folder(spec), "cpu")
        except EngineError:
            return Whereabouts("cpu", is_here=False)

    def fetch(self, spec: ModelSpec, progress: Progress) -> str:
        """See `Family`."""
        return str(on_hub.fetch(progress)) if (on_hub := _on_hub(spec)) else super().fetch(spec, progress)

    def remove(self, spec: ModelSpec) -> int:
        """See `Family`."""
        return on_hub.remove() if (on_hub := _on_hub(spec)) else super().remove(spec)

    def load(self, spec: ModelSpec, threads: int) -> Engine:
        """See `Family`."""
        language = self.info(spec).languages[0]
        model = MoonshineModel(_folder(spec), threads=threads, language=language, heads=_heads(spec))
        model.warm_up()
        return RollingEngine(model)


def _on_hub(spec: ModelSpec) -> HubModel | None:
    """Where the authors have it; None: it is embedded, or has a folder of its own."""
    if spec.settings.path is not None or spec.name == EMBEDDED:
        return None
    name = spec.name_in_family
    return HubModel(spec.name, _REPOSITORY, _FILES, _FILES, subfolder=f"model/{name}/quantized/{name}")


def _folder(spec: ModelSpec) -> Path:
    """Where the files are. Raises EngineError: they aren't."""
    if on_hub := _on_hub(spec):
        return on_hub.folder()
    folder: Path = spec.settings.path or embedded_folder()
    if not folder.is_dir():
        raise EngineError(f"The model {spec.name} can't be loaded: there is no folder {folder}. Set its `path`.")
    return folder


def _heads(spec: ModelSpec) -> tuple[tuple[int, int], ...]:
    """The attention heads that tell times of words, where they are known."""
    is_embedded = spec.name == EMBEDDED and spec.settings.path is None
    return ALIGNMENT_HEADS if is_embedded else spec.settings.alignment_heads


def embedded_folder() -> Path:
    """The folder of the English model inside the installed `moonshine-voice` wheel; the package is not imported.

    Raises EngineError if the wheel or its model files are not installed.
    """
    spec = importlib.util.find_spec("moonshine_voice")
    for location in (spec and spec.submodule_search_locations) or ():
        folder = Path(location) / "assets" / "tiny-en"
        if folder.is_dir():
            return folder
    raise EngineError("The embedded Moonshine model is missing: install moonshine-voice==0.0.73")


@dataclass(slots=True)
class Greedy:
    """What greedy decoding chose: token ids without start and end, and their natural logarithms of probability."""

    ids: list[int]
    logprobs: list[float]

    def append(self, token_id: int, row: Logits) -> None:
        """Add a token; `row` (vocabulary,) holds the logits that it was chosen from."""
        self.ids.append(token_id)
        highest = float(row.max())
        log_sum = highest + float(np.log(np.exp(row - highest).sum()))
        self.logprobs.append(float(row[token_id]) - log_sum)

    def cut_loop(self) -> bool:
        """Remove a loop at the end. Returns whether there was one."""
        length = length_without_loop(self.ids)
        has_loop = length < len(self.ids)
        del self.ids[length:], self.logprobs[length:]
        return has_loop


class Predictor(Protocol):
    """A decoder that stands inside one utterance and remembers the tokens that it was fed."""

    def feed(self, ids: Sequence[int]) -> Logits:
        """Append tokens; returns the logits (len(ids), vocabulary) of the token after each."""
        ...

    def rewind(self, tokens: int) -> None:
        """Forget the last tokens that were fed."""
        ...


class Draft:
    """A guess of the tokens to come, and how much of it is used up. Lives for one decoding."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = tuple(ids)
        """What is not used up."""

    def after(self, ids: Sequence[int]) -> tuple[int, ...]:
        """What the draft expects after the last of the chosen `ids`; nothing while it does not know where it is.

        Call it once for each token that `use` did not count. Where the draft went wrong it goes on behind the first
        place, among its next DRAFT_SEARCH_TOKENS, that holds the last two tokens.
        """
        if self.ids[:1] == tuple(ids[-1:]):
            self.use(1)
            return self.ids
        last_two = tuple(ids[-2:])
        for start in range(DRAFT_SEARCH_TOKENS):
            if self.ids[start : start + 2] == last_two:
                self.use(start + 2)
                return self.ids
        return ()

    def use(self, tokens: int) -> None:
        """Count the next `tokens` of the draft as chosen."""
        self.ids = self.ids[tokens:]


def decode_greedily(
    predictor: Predictor,
    max_tokens: int,
    draft_ids: Sequence[int] = (),
    biasing: Biasing | None = None,
    said_ids: Sequence[int] = (),
) -> Greedy:
    """Take the likeliest token again and again, until the model ends, loops, or has said `max_tokens` tokens.

    `draft_ids` is a guess of the result. Where it agrees with the model's own choice, many tokens are taken in one call
    (speculative decoding, Leviathan et al. 2023). A draft saves time. It changes the text only where two tokens are
    almost equally likely, because sums of several tokens at once are rounded a little differently from those of one.
    `biasing` has phrases that are expected and changes the choice; the probabilities stay the model's own. `said_ids`
    is how the text begins; it is not part of the result.
    """
    chosen = Greedy([], [])
    draft = Draft(draft_ids)
    unfed, proposed = [START_ID, *said_ids], draft.ids[:MAX_DRAFT_TOKENS]
    while True:
        rows = predictor.feed([*unfed, *proposed])[len(unfed) - 1 :]
        said: list[Said] = []
        accepted = 0
        for row in rows:
            token_id = int((biasing.adjust(chosen.ids, row) if biasing else row).argmax())
            if token_id == END_ID or len(chosen.ids) >= max_tokens:
                return chosen
            said = [Said(token_id, row)]
            if biasing and token_id == row.argmax() and biasing.starts(row):
                predictor.rewind(len(proposed) - accepted)  # what is tried follows on here
                proposed = proposed[:accepted]
                said = biasing.lookahead(chosen.ids, row, lambda ids: _probe(predictor, ids)) or said
            for token in said:
                chosen.append(*token)
                if chosen.cut_loop():
                    return chosen
            if accepted == len(proposed) or token_id != proposed[accepted]:
                break
            accepted += 1
        predictor.rewind(len(proposed) - accepted)
        draft.use(accepted)
        unfed = [token.token_id for token in said]
        for missing in range(len(said) - 1, -1, -1):
            proposed = draft.after(chosen.ids[: len(chosen.ids) - missing])[:MAX_DRAFT_TOKENS]


def _probe(predictor: Predictor, ids: Sequence[int]) -> Logits:
    rows = predictor.feed(ids)
    predictor.rewind(len(ids))
    return rows


class MoonshineModel:
    """The two networks and the vocabulary. Lives in the worker process and is called by one thread only.

    The files are read on first use, or by `load`. Implements `OfflineModel`.
    """

    def __init__(
        self, folder: Path, *, threads: int = 1, language: str = "en", heads: Sequence[tuple[int, int]] = ()
    ) -> None:
        """`folder` holds `encoder_model.ort`, `decoder_model_merged.ort` and `tokenizer.bin`.

        `threads` is the number of threads of the encoder. The decoder always has one: its steps are too small to share
        out (measured: two threads made a step slower). `heads` are layers and heads of the decoder that follow the
        audio; without them it can't be found out when words were said.
        """
        self._folder = folder
        self._threads = threads
        self._language = language
        self._max_tokens_per_s = _OTHER_MAX_TOKENS_PER_S.get(without_region(language), MAX_TOKENS_PER_S)
        self._encoder: Any = None
        self._decoder: Any = None
        self._audio_names: list[str] = []
        self._no_text: dict[str, Any] = {}
        self._vocabulary: Vocabulary | None = None
        self._biasings: dict[tuple[str, ...], Biasing] = {}
        self.aligner = MoonshineAligner(folder, heads, self._encoded)

    @classmethod
    def embedded(cls, *, threads: int = 1) -> MoonshineModel:
        """The English model inside the wheel. Raises EngineError if it is not installed."""
        return cls(embedded_folder(), threads=threads, heads=ALIGNMENT_HEADS)

    def load(self) -> None:
        """Read the model files unless that is done. Raises EngineError if one is missing or can't be read."""
        if self._vocabulary is not None:
            return
        graphs = build_graphs(self._folder)
        encoder, decoder = graphs.encoder.SerializeToString(), graphs.decoder.SerializeToString()
        self._encoder = open_network(encoder, "Moonshine", threads=self._threads, has_signed_weights=True)
        self._decoder = open_network(decoder, "Moonshine", has_signed_weights=True)
        self._audio_names = cache_names("audio", graphs.layers)
        self._no_text = dict.fromkeys(cache_names("past", graphs.layers), _no_cache(graphs.head_size))
        tokenizer = self._folder / "tokenizer.bin"
        if not tokenizer.is_file():
            raise EngineError(f"The model file {tokenizer} is missing")
        self._vocabulary = Vocabulary(tokenizer.read_bytes())

    def warm_up(self) -> None:
        """Load the model and run it once, so that the first utterance does not wait."""
        self.decode(np.zeros(SAMPLE_RATE, np.float32))

    def transcribe(self, utterances: Sequence[Utterance]) -> list[Transcript]:
        """See `OfflineModel`. Of the options, it takes keywords and prompt. Raises EngineError: it can't be run."""
        return [Transcript(self.tokens(self._decode_utterance(found)), self._language) for found in utterances]

    def _decode_utterance(self, utterance: Utterance) -> Greedy:
        phrases = phrases_of(utterance.options)
        return self.decode(utterance.samples, _ids(utterance.draft), phrases, utterance.context)

    def decode(
        self,
        samples: Samples,
        draft_ids: Sequence[int] = (),
        phrases: tuple[str, ...] = (),
        context: Context | None = None,
    ) -> Greedy:
        """The token ids of one utterance, float32 mono 16 kHz, of at most 98 s; nothing for no samples.

        `draft_ids` is a guess of them, such as the result for the first part of the utterance, and `phrases` are
        expected: see `decode_greedily`. `context` is heard before it. Raises EngineError if the model can't be loaded
        or run.
        """
        self.load()
        if samples.size == 0:
            return Greedy([], [])
        max_tokens = int(self._max_tokens_per_s * samples.size / SAMPLE_RATE) + EXTRA_TOKENS
        heard = np.concatenate([context.samples, samples]) if context else samples
        said_ids = _ids(context.tokens) if context else ()
        with engine_errors("Moonshine"):
            audio = self._encoded(heard, self._audio_names)
            self.aligner.remember(samples, audio, heard.size - samples.size, said_ids)
            found = decode_greedily(self._predictor(audio), max_tokens, draft_ids, self._biasing(phrases), said_ids)
        if context and not found.ids:  # after a full stop the model may take the rest for nothing
            return self.decode(samples, draft_ids, phrases)
        return found

    def _biasing(self, phrases: tuple[str, ...]) -> Biasing | None:
        if not phrases:
            return None
        if phrases not in self._biasings:
            assert self._vocabulary is not None
            if len(self._biasings) >= MAX_BIASINGS:
                del self._biasings[next(iter(self._biasings))]
            self._biasings[phrases] = Biasing(self._vocabulary.pieces, phrases)
        return self._biasings[phrases]

    def tokens(self, greedy: Greedy) -> tuple[Token, ...]:
        """The pieces of text of a result of `decode`; a piece that begins a word begins with a space."""
        self.load()
        assert self._vocabulary is not None
        return self._vocabulary.tokens(greedy.ids, greedy.logprobs)

    def align(self, jobs: Sequence[Align]) -> list[Alignment | EngineError]:
        """See `Aligner`. Raises EngineError: the model can't be loaded or run, or it isn't known what follows audio."""
        self.load()
        return [self.aligner.align(job) for job in jobs]

    def encode(self, samples: Samples) -> Predictor:
        """The decoder before the first token of this audio. The model is loaded."""
        return self._predictor(self._encoded(samples, self._audio_names))

    def _predictor(self, audio: Mapping[str, Any]) -> Predictor:
        return _Utterance(self._decoder, audio, self._no_text)

    def _encoded(self, samples: Samples, names: Sequence[str]) -> dict[str, Any]:
        """The keys and values of these names that the decoder takes of the audio."""
        samples = samples - samples.mean()  # a microphone's constant offset costs accuracy
        samples = np.pad(samples, (0, max(MIN_SAMPLES - samples.size, 0)))
        inputs = {"samples": ort_value(samples[np.newaxis])}
        return dict(zip(names, self._encoder.run_with_ort_values(list(names), inputs, _shrinking()), strict=True))


def _ids(tokens: Sequence[Token]) -> list[int]:
    return [token_id for token in tokens for token_id in token.ids]


def _no_cache(head_size: int) -> Any:
    return ort_value(np.zeros((1, HEADS, 0, head_size), np.float32))


class _Utterance:
    """The decoder inside one utterance, with its key and value caches. Implements `Predictor`.

    The caches stay inside onnxruntime (as `OrtValue`): going through numpy would make a step a third slower.
    """

    def __init__(self, decoder: Any, audio: Mapping[str, Any], no_text: Mapping[str, Any]) -> None:
        """`audio` comes from the encoder, `no_text` is the cache before the first token."""
        self._decoder = decoder
        self._inputs = {**audio, **no_text}
        self._past = list(no_text)
        self._outputs = ["logits", *(name.replace("past", "present") for name in no_text)]
        self._tokens = 0

    def feed(self, ids: Sequence[int]) -> Logits:
        self._inputs["ids"] = ort_value(np.array([ids], np.int64))
        self._inputs["position"] = ort_value(np.array([self._tokens], np.int64))
        results = self._decoder.run_with_ort_values(self._outputs, self._inputs)
        self._inputs |= dict(zip(self._past, results[1:], strict=True))
        self._tokens += len(ids)
        logits: Logits = results[0].numpy()[0]
        return logits

    def rewind(self, tokens: int) -> None:
        if tokens == 0:
            return
        for name in self._past:
            self._inputs[name] = ort_value(np.ascontiguousarray(self._inputs[name].numpy()[:, :, :-tokens]))
        self._tokens -= tokens


def _shrinking() -> Any:
    """Options of a run that gives its memory back at the end.

    The encoder's memory grows with the square of the audio's length (150 MB for 30 s). Without an arena at all
    it is slower (0.68 against 0.48 s for 30 s) and no smaller.
    """
    from onnxruntime import RunOptions

    options = RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options
