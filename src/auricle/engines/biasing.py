"""Contextual biasing: a greedy decoder is helped to names and terms that it is told beforehand.

Knows token ids and logits, and no network. The phrases are kept as a trie over the model's own tokens, as in shallow
fusion with a prefix tree (Zhao et al., "Shallow-Fusion End-to-End Contextual Biasing", 2019). A beam can drop a phrase
that was begun in vain. A greedy decoder can't, and a bonus for first tokens does harm (12 errors more with a bonus of 1
in the log domain, 35 with 2). So there are two helps, which go together:

- `adjust` gives a bonus only inside a phrase that the model has begun by itself.
- `lookahead` follows a phrase that the model has not begun, but nearly, and takes it only if the model can say it to
  its end without giving up much. This finds nearly as many words again.

The figures below are from recordings of `benchmarks/keywords.py`: of 424 rare words 372 are found without keywords and
393 with them, and 100 wrong keywords change nothing: 6.81 % of 3,495 words are wrong with them and without.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from auricle.protocol.config import Transcription

Logits = NDArray[np.float32]
Probe = Callable[[Sequence[int]], Logits]
"""The logits (n, vocabulary) after each of n tokens that follow on what was said; asking changes nothing."""

BONUS_PER_LETTER = 1.0
"""What `adjust` adds to a logit, for each letter of the phrase that is said with it, beyond FREE_LETTERS."""
FREE_LETTERS = 3
"""Many words begin with the same two or three letters: so few say nothing for a phrase."""
MAX_BONUS = 6.0
"""With 8 wrong keywords make 5 errors more: the model completes what nobody has said."""
MAX_START_GAP = 2.0
"""How far the logit of a phrase's first token may lie below the highest if `lookahead` is to try it."""
MAX_STARTS = 2
"""How many first tokens are tried in one place: each costs at least one step of the decoder."""
MAX_REGRET = 3.0
"""How far the logits of a phrase may lie below the highest ones, for all its tokens and its end together.

With 4, and with gaps up to 4 and 4 starts, 13 words more are found, but wrong keywords make 5 errors more.
"""
MAX_PHRASE_LETTERS = 100
"""A longer phrase is no name and no term, and is left out."""
MAX_PHRASES = 300
"""As many as the keywords that a client may give; they come before the words of its prompt."""
MIN_TERM_LETTERS = 9
"""So many letters make a word of a prompt a term even in lower case: common words are shorter."""
MAX_LIST_WORDS = 4
"""So many words can be a name or a term in a list; more are a part of a sentence."""

_SPACE = "▁"
_PLURAL = b"s"
_COMMON_WORDS = """
a about an and are as at be been but by can could did do does for from had has have he her here his how i if in is it
its just let like me my no not of oh okay on or our please she so that the their them then there they this to um umm us
was we were what when where which who why will with would yes you your
"""
_COMMON = frozenset(_COMMON_WORDS.split())
"""Words that names and terms seldom hold; a part of a prompt that does is a part of a sentence."""


class Said(NamedTuple):
    """A token of a phrase, and the logits (vocabulary,) that it is chosen from."""

    token_id: int
    row: Logits


class Biasing:
    """The phrases that are expected, for one vocabulary. Immutable, so all its answers depend on the arguments alone.

    Making one takes tens of milliseconds, so keep it for the next utterance with the same phrases.
    """

    def __init__(self, pieces: Sequence[bytes], phrases: Sequence[str]) -> None:
        """`pieces` holds the bytes of each token, with `▁` for a space; `phrases` are as they are to be written.

        The pieces must stand in the order of their merges, as those of SentencePiece's BPE do. Phrases of more than
        MAX_PHRASE_LETTERS and those after the first MAX_PHRASES are left out, and such that can't be spelled in pieces.
        """
        segmenter = _Segmenter(pieces)
        usable = [" ".join(phrase.split()) for phrase in phrases if len(phrase) <= MAX_PHRASE_LETTERS]
        forms = dict.fromkeys(form for phrase in usable[:MAX_PHRASES] if phrase for form in _forms(phrase))
        self._phrases = {segmenter.segment(form) for form in forms} - {()}
        self._longest = max(map(len, self._phrases), default=0)
        self._next = _trie(self._phrases, pieces)
        self._starts = self._next[()].ids if self._phrases else np.empty(0, np.int64)
        self._ends_word = np.array([_ends_word(piece) for piece in pieces])

    def adjust(self, ids: Sequence[int], row: Logits) -> Logits:
        """The logits `row` (vocabulary,) of the token after `ids`, with a bonus for tokens that continue a phrase.

        It is `row` itself if `ids` do not end inside a phrase. The bonus grows with the letters that agree.
        """
        adjusted = row
        for length in range(1, min(self._longest, len(ids) + 1)):
            found = self._next.get(tuple(ids[-length:]))
            if found is not None and found.bonuses.any():
                if adjusted is row:
                    adjusted = row.copy()
                adjusted[found.ids] = np.maximum(adjusted[found.ids], row[found.ids] + found.bonuses)
        return adjusted

    def starts(self, row: Logits) -> list[int]:
        """The tokens that begin a phrase and were nearly the likeliest of `row`, the likelier first; mostly none.

        The likeliest itself is not among them: where that begins a phrase, `adjust` will do.
        """
        best = int(row.argmax())
        near = self._starts[row[self._starts] >= row[best] - MAX_START_GAP]
        ordered = near[(-row[near]).argsort()].tolist()
        return [token_id for token_id in ordered if token_id != best][:MAX_STARTS]

    def lookahead(self, ids: Sequence[int], row: Logits, probe: Probe) -> list[Said]:
        """The phrase to say after `ids` in place of the likeliest token of `row`; empty if none is likely enough.

        From each of `starts` the likeliest way through the trie is followed, as long as it gives up no more than
        MAX_REGRET. The phrase with the least regret is taken, unless it has just been said. Call it only where `row`
        does not end the text. Calls `probe` only if there are `starts`.
        """
        best: list[Said] = []
        least = MAX_REGRET
        for start in self.starts(row):
            said, regret = self._follow(Said(start, row), probe)
            if regret <= least and not _has_just_said(ids, said):
                best, least = said, regret
        return best

    def _follow(self, start: Said, probe: Probe) -> tuple[list[Said], float]:
        """The likeliest phrase from its first token on, and its regret. It is unfinished if that is over MAX_REGRET."""
        said = [start]
        regret = _gap(start.row, start.token_id)
        while regret <= MAX_REGRET:
            prefix = tuple(token.token_id for token in said)
            row = probe(prefix)[-1]
            end_gap = float(row.max() - row[self._ends_word].max()) if prefix in self._phrases else np.inf
            following = self._next.get(prefix)
            next_id = int(following.ids[row[following.ids].argmax()]) if following else None
            if next_id is None or end_gap < _gap(row, next_id):
                return said, regret + end_gap
            regret += _gap(row, next_id)
            said.append(Said(next_id, row))
        return said, regret


class _Continuations(NamedTuple):
    """The tokens that go on after a prefix of a phrase, and the bonus of each."""

    ids: NDArray[np.int64]
    bonuses: Logits


def _trie(phrases: Iterable[tuple[int, ...]], pieces: Sequence[bytes]) -> dict[tuple[int, ...], _Continuations]:
    """For each prefix of the phrases, the empty one too, the tokens that continue it."""
    bonuses: dict[tuple[int, ...], dict[int, float]] = {}
    for phrase in phrases:
        letters = 0
        for index, token_id in enumerate(phrase):
            letters += len(pieces[token_id].replace(_SPACE.encode(), b""))
            bonus = min(MAX_BONUS, max(0.0, BONUS_PER_LETTER * (letters - FREE_LETTERS)))
            bonuses.setdefault(phrase[:index], {})[token_id] = bonus
    return {
        prefix: _Continuations(np.array([*found], np.int64), np.array([*found.values()], np.float32))
        for prefix, found in bonuses.items()
    }


def _gap(row: Logits, token_id: int) -> float:
    return float(row.max() - row[token_id])


def _has_just_said(ids: Sequence[int], said: Sequence[Said]) -> bool:
    """Whether `ids` end with a phrase, or with it and one token more, such as a comma."""
    phrase = [token.token_id for token in said]
    return phrase in (list(ids[-len(phrase) :]), list(ids[-len(phrase) - 1 : -1]))


def _ends_word(piece: bytes) -> bool:
    """Whether a word is complete if this token follows. A plural is still that word; the end of the text is `</s>`."""
    is_letter = piece[:1].isalnum() or piece[:1] >= b"\x80"
    return piece.startswith(_SPACE.encode()) or not is_letter or piece == _PLURAL


def _forms(phrase: str) -> list[str]:
    """How a phrase may be written: as given, and with the other case where its letters' cases say nothing special."""
    forms = [phrase, phrase[0].upper() + phrase[1:]]
    if phrase.islower():
        forms.append(" ".join(word[0].upper() + word[1:] for word in phrase.split()))
    if phrase[1:].islower():
        forms.append(phrase.lower())
    return forms


class _Segmenter:
    """Splits text into tokens as the tokenizer did when the model was trained: it says a word in no other tokens.

    Byte-pair encoding (Sennrich et al. 2016) as SentencePiece does it: its merges are the pieces, in the order of their
    ids. Checked on 181 texts of the model: 177 are segmented like this, and the others hold a word that does not exist.
    """

    def __init__(self, pieces: Sequence[bytes]) -> None:
        # Some characters come twice, as bytes and later as themselves; these are meant. Marks such as </s> are no text.
        self._ids = {piece: token_id for token_id, piece in enumerate(pieces) if not re.fullmatch(rb"<.+>", piece)}

    def segment(self, text: str) -> tuple[int, ...]:
        """The token ids of a text that begins a word; none if it can't be spelled.

        Characters that are no pieces are spelled in bytes.
        """
        parts = [character.encode() for character in _SPACE + text.replace(" ", _SPACE)]
        while True:
            ranks = [(self._ids.get(left + right), index) for index, (left, right) in enumerate(pairwise(parts))]
            _, index = min(((rank, index) for rank, index in ranks if rank is not None), default=(0, -1))
            if index < 0:
                break
            parts[index : index + 2] = [parts[index] + parts[index + 1]]
        spelled = [piece for part in parts for piece in ([part] if part in self._ids else map(_byte, part))]
        return tuple(self._ids[piece] for piece in spelled) if all(piece in self._ids for piece in spelled) else ()


def _byte(value: int) -> bytes:
    return bytes([value])


_WORD = re.compile(r"[^\W_]+(?:[-'’·.&][^\W_]+)*")
_SENTENCE_END = re.compile(r"[.!?:;…]+(?:\s|$)|\n")
_AROUND = " \t\"'“”‘’()[]"


def phrases_of(options: Transcription) -> tuple[str, ...]:
    """What a client wants recognised: its keywords, and the names and terms in its prompt, each once.

    A part of a prompt between commas with up to MAX_LIST_WORDS words, none of them common, counts as a whole, so that
    lists work. In sentences, names are words with a capital that no sentence begins with, or with one inside;
    neighbours are one name. Terms are long words. Common words need no help.
    """
    phrases = list(options.keywords or ())
    for sentence in _SENTENCE_END.split(options.prompt or ""):
        parts = [part.strip(_AROUND) for part in sentence.split(",")]
        is_list = len(parts) > 1 or len(sentence.split()) == 1
        for index, part in enumerate(parts):
            phrases += [part] if is_list and _is_term(part) else _names_and_terms(part, begins_sentence=index == 0)
    return tuple(dict.fromkeys(phrases))


def _is_term(part: str) -> bool:
    """Whether a part of a list can be a name or a term as a whole."""
    words = part.split()
    return 0 < len(words) <= MAX_LIST_WORDS and not any(map(_is_common, words))


def _is_common(word: str) -> bool:
    return re.split("['’]", word.lower())[0] in _COMMON or not any(map(str.isalpha, word))


def _names_and_terms(text: str, *, begins_sentence: bool) -> list[str]:
    """The names and terms in a part of a sentence; neighbouring names are one."""
    found: list[str] = []
    name_end = -1
    for match in _WORD.finditer(text):
        word = match.group()
        starts_sentence = begins_sentence and match.start() == 0
        is_name = any(map(str.isupper, word[1:] if starts_sentence else word))
        if _is_common(word):
            continue
        if is_name and match.start() == name_end + 1 and text[name_end] == " ":
            found[-1] += " " + word
        elif is_name or len(word) >= MIN_TERM_LETTERS:
            found.append(word)
        name_end = match.end() if is_name else -1
    return [re.sub("['’]s$", "", phrase) for phrase in found]
