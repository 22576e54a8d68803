"""A Whisper model in miniature, in CTranslate2's format: real files for the real loading code.

Its weights are set by hand. What it says depends on the last token and on how loud the audio is: quiet audio is
English, and says `QUIET`; loud audio is German, and says `LOUD`. Asked to translate, it says `TRANSLATED`: of earlier
tokens it sees that one alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ctranslate2.specs import whisper_spec
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from auricle.protocol.languages import LANGUAGE_NAMES

QUIET = " Hello to all of you."
LOUD = " Guten Tag, schöne Welt👋."
TRANSLATED = " Good day."

_DEPTH = 32
_MELS = 80
_LOUDNESS = _DEPTH - 1
"""The dimension that says how loud the audio is."""
_TASK = _DEPTH - 2
"""That which says whether it is to be translated."""
_THRESHOLD = 0.4
"""Of Whisper's own measure of a frame's loudness: -1 to 1.5."""
_LANGUAGES = [f"<|{code}|>" for code in LANGUAGE_NAMES if code != "yue"]
_SPECIAL = ["<|endoftext|>", "<|startoftranscript|>", *_LANGUAGES, "<|translate|>", "<|transcribe|>"]
_SPECIAL += ["<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
_TIMES = [f"<|{step * 0.02:.2f}|>" for step in range(1501)]


_TEXT_TOKENS = 50_256
"""How many tokens of text there are. Models of many languages have an empty one too: by that CTranslate2 tells them."""


def build(folder: Path, *, is_multilingual: bool = True) -> Path:
    """Write the model's files. Returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer([""] if is_multilingual else [])
    tokenizer.save(str(folder / "tokenizer.json"))
    vocabulary = [tokenizer.id_to_token(number) for number in range(tokenizer.get_vocab_size())] + _TIMES
    spec = whisper_spec.WhisperSpec(1, 1, 1, 1)
    _fill(spec)
    _set_encoder(spec.encoder)
    _set_decoder(spec.decoder, tokenizer, len(vocabulary))
    spec.config.lang_ids = [tokenizer.token_to_id(language) for language in _LANGUAGES]
    spec.config.suppress_ids = spec.config.suppress_ids_begin = []
    spec.config.alignment_heads = [[0, 0]]
    spec.register_vocabulary(vocabulary)
    spec.validate()
    spec.save(str(folder))
    return folder


def _tokenizer(more_pieces: list[str]) -> Tokenizer:
    """Byte-level BPE like Whisper's: all bytes, some words of the texts, and tokens that never occur."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = []
    for word in ("Ġto", "Ġall", "Ġof", "Ġyou", "ĠHello", "ĠGuten", "ĠTag", "Ġsch", "ĠWelt", "ĠGood", "Ġday"):
        piece = word[0]
        for letter in word[1:]:
            merges.append((piece, letter))
            piece += letter
            pieces.append(piece)
    pieces = list(dict.fromkeys(pieces))
    pieces += [f"unused{number}" for number in range(_TEXT_TOKENS - len(pieces))] + more_pieces
    tokenizer = Tokenizer(
        models.BPE({piece: number for number, piece in enumerate(pieces)}, list(dict.fromkeys(merges)))
    )
    tokenizer.pre_tokenizer, tokenizer.decoder = byte_level, decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in _SPECIAL])
    return tokenizer


def _fill(spec: whisper_spec.WhisperSpec) -> None:
    """Zeros for everything, and norms that change nothing but the scale."""
    zero, square = np.zeros(_DEPTH, np.float32), np.zeros((_DEPTH, _DEPTH), np.float32)
    for half in (spec.encoder, spec.decoder):
        _norm(half.layer_norm)
        for layer in half.layer:
            attentions = [layer.self_attention, *([layer.attention] if half is spec.decoder else [])]
            for attention in attentions:
                _norm(attention.layer_norm)
                # Queries, keys and values are one matrix where all come from the same place.
                widths = (3, 1) if len(attention.linear) == 2 else (1, 2, 1)
                for linear, width in zip(attention.linear, widths, strict=True):
                    linear.weight, linear.bias = np.tile(square, (width, 1)), np.tile(zero, width)
            _norm(layer.ffn.layer_norm)
            for linear in (layer.ffn.linear_0, layer.ffn.linear_1):
                linear.weight, linear.bias = square.copy(), zero.copy()


def _norm(norm: object) -> None:
    norm.gamma, norm.beta = np.ones(_DEPTH, np.float32), np.zeros(_DEPTH, np.float32)  # type: ignore[attr-defined]


def _set_encoder(encoder: whisper_spec.WhisperEncoderSpec) -> None:
    """Frames that are loud become a vector along `_LOUDNESS`, others nothing."""
    first, second = np.zeros((_DEPTH, _MELS, 3), np.float32), np.zeros((_DEPTH, _DEPTH, 3), np.float32)
    bias = np.zeros(_DEPTH, np.float32)
    first[_LOUDNESS, :, 1] = 10 / _MELS
    bias[_LOUDNESS] = -10 * _THRESHOLD
    second[_LOUDNESS, _LOUDNESS, 1] = 1
    encoder.conv1.weight, encoder.conv1.bias = first, bias
    encoder.conv2.weight, encoder.conv2.bias = second, np.zeros(_DEPTH, np.float32)
    encoder.position_encodings.encodings = np.zeros((1500, _DEPTH), np.float32)


def _set_decoder(decoder: object, tokenizer: Tokenizer, size: int) -> None:
    """Each token of a text calls for the next one; how loud it is decides where there are two."""
    values, output = decoder.layer[0].attention.linear[1:]  # type: ignore[attr-defined]
    values.weight[_DEPTH + _LOUDNESS, _LOUDNESS] = 1
    output.weight[_LOUDNESS, _LOUDNESS] = 1
    to_all, output = decoder.layer[0].self_attention.linear  # type: ignore[attr-defined]
    to_all.weight[2 * _DEPTH + _TASK, _TASK] = output.weight[_TASK, _TASK] = 1
    embeddings, projection = np.zeros((size, _DEPTH), np.float32), np.zeros((size, _DEPTH), np.float32)
    codes: dict[int, int] = {}

    def follows(token: int, after: int, loudness: float = 0.0) -> None:
        code = codes.setdefault(after, len(codes))
        embeddings[after, code] = 1
        projection[token, code] = 10
        projection[token, _LOUDNESS] = loudness

    end, begin = tokenizer.token_to_id("<|endoftext|>"), tokenizer.token_to_id("<|startoftranscript|>")
    no_times = tokenizer.token_to_id("<|notimestamps|>")
    for text, language, loudness in ((QUIET, "<|en|>", -1.0), (LOUD, "<|de|>", 1.0)):
        follows(tokenizer.token_to_id(language), begin, loudness)
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        # A token that occurs twice could not tell what follows it.
        assert len({*ids}) == len(ids), [tokenizer.id_to_token(number) for number in ids]
        for before, token in zip([no_times, *ids], ids, strict=False):
            follows(token, before, loudness if before == no_times else 0.0)
        follows(end, ids[-1])
    first, *rest = tokenizer.encode(TRANSLATED, add_special_tokens=False).ids
    for before, token in zip([first, *rest], [*rest, end], strict=True):
        follows(token, before)
    # Less likely than the others, but for what the token of the task adds.
    projection[first, codes[no_times]], projection[first, _TASK] = 7, 6
    embeddings[tokenizer.token_to_id("<|translate|>"), _TASK] = 1
    assert len(codes) < _TASK
    decoder.embeddings.weight, decoder.projection.weight = embeddings, projection  # type: ignore[attr-defined]
    decoder.position_encodings.encodings = np.zeros((448, _DEPTH), np.float32)  # type: ignore[attr-defined]
