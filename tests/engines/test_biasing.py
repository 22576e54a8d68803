"""Contextual biasing, with a small vocabulary and with the embedded model's own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from auricle.engines.base import Transcription
from auricle.engines.biasing import (
    FREE_LETTERS,
    MAX_BONUS,
    MAX_PHRASE_LETTERS,
    MAX_PHRASES,
    MAX_REGRET,
    MAX_START_GAP,
    MAX_STARTS,
    Biasing,
    Logits,
    phrases_of,
)
from auricle.engines.moonshine import embedded_folder
from auricle.engines.moonshine_vocabulary import parse_tokenizer

WORD_PARTS = [
    "▁Zar",
    "ath",
    "ustra",
    "▁Sher",
    "▁sher",
    "burn",
    "lock",
    "▁San",
    "▁Francisco",
    "▁Tom",
    "▁the",
    "ar",
    "</s",
]
MERGES = [part[:length] for part in WORD_PARTS for length in range(2, len(part) + 1)]
PIECES = [
    *(b"<unk>", b"<s>", b"</s>"),
    *(bytes([byte]) for byte in range(256)),
    *(piece.encode() for piece in dict.fromkeys(MERGES)),
    *(character.encode() for character in "▁abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ',.-é"),
]
IDS = {piece.decode(errors="replace"): token_id for token_id, piece in enumerate(PIECES)}


def ids(text: str) -> list[int]:
    """Tokens that are given with spaces between them."""
    return [IDS[piece] for piece in text.split()]


def logits(**of_pieces: float) -> Logits:
    row = np.full(len(PIECES), -20, np.float32)
    for piece, logit in of_pieces.items():
        row[IDS[piece.replace("_", "▁")]] = logit
    return row


def bonuses(biasing: Biasing, text: str) -> dict[str, float]:
    """What each token gains after a text, if it gains anything."""
    row = logits()
    gain = biasing.adjust(ids(text), row) - row
    return {PIECES[token_id].decode(): float(gain[token_id]) for token_id in gain.nonzero()[0]}


class Model:
    """Says for each text, given as its tokens, the logits of the token after it."""

    def __init__(self, rows: dict[str, Logits]) -> None:
        self.rows = {tuple(ids(text)): row for text, row in rows.items()}
        self.asked: list[tuple[int, ...]] = []

    def probe(self, phrase: Sequence[int]) -> Logits:
        self.asked.append(tuple(phrase))
        return np.stack([self.rows[tuple(phrase[: length + 1])] for length in range(len(phrase))])


def lookahead(biasing: Biasing, row: Logits, model: Model, after: str = "") -> str:
    said = biasing.lookahead(ids(after), row, model.probe)
    assert all(token.row is row or token.row.shape == row.shape for token in said)
    return " ".join(PIECES[token.token_id].decode() for token in said)


# A bonus inside a phrase


def test_the_bonus_grows_with_the_letters_that_agree():
    biasing = Biasing(PIECES, ["Zarathustra"])
    assert bonuses(biasing, "▁Zar") == {"ath": 3}
    assert bonuses(biasing, "▁Zar ath") == {"ustra": MAX_BONUS}
    assert bonuses(biasing, "▁the ▁Zar ath") == {"ustra": MAX_BONUS}


@pytest.mark.parametrize("text", ["", "▁the", "ath", "▁Zar ath ustra", "▁Zar ath ustra ▁the", "▁Za r", "▁Zar ar"])
def test_nothing_is_changed_outside_a_phrase(text: str):
    row = logits()
    assert Biasing(PIECES, ["Zarathustra"]).adjust(ids(text), row) is row


def test_the_logits_that_were_given_are_not_changed():
    row = logits(ath=1)
    before = row.copy()
    biasing = Biasing(PIECES, ["Zarathustra"])
    first = biasing.adjust(ids("▁Zar"), row)
    assert first is not row
    np.testing.assert_array_equal(row, before)
    np.testing.assert_array_equal(biasing.adjust(tuple(ids("▁Zar")), row), first)


def test_a_phrase_is_segmented_like_the_models_own_text():
    """`▁S h` is a way to `Sherburn`, too, but one that the model never takes to it."""
    biasing = Biasing(PIECES, ["Sherburn"])
    assert bonuses(biasing, "▁Sher") == {"burn": 5}
    assert bonuses(biasing, "▁Sh") == {}


def test_phrases_share_their_beginning():
    biasing = Biasing(PIECES, ["Sherburn", "Sherlock"])
    assert bonuses(biasing, "▁Sher") == {"burn": 5, "lock": 5}


def test_a_phrase_of_several_words_goes_on_over_the_space():
    assert bonuses(Biasing(PIECES, ["  San   Francisco "]), "▁San") == {"▁Francisco": MAX_BONUS}


@pytest.mark.parametrize(
    ("phrase", "written"),
    [
        ("sherburn", "▁sher"),
        ("sherburn", "▁Sher"),
        ("Sherburn", "▁Sher"),
        ("Sherburn", "▁sher"),
        ("san francisco", "▁San"),
    ],
)
def test_the_case_of_ordinary_words_may_differ(phrase: str, written: str):
    assert bonuses(Biasing(PIECES, [phrase]), written)


def test_a_case_that_is_special_is_kept():
    biasing = Biasing(PIECES, ["ZarAth"])
    assert bonuses(biasing, "▁Zar") == {"A": 1}
    assert len(biasing.starts(logits(**{"_Zar": 1, "_Z": 1, "▁": 1, "_the": 2}))) == 1


def test_phrases_that_cannot_be_used_are_left_out():
    long = "Zarathustra" * (MAX_PHRASE_LETTERS // 11 + 1)
    biasing = Biasing(PIECES, ["", "  ", long, *["the"] * MAX_PHRASES, "Sherburn"])
    assert bonuses(biasing, "▁Zar") == bonuses(biasing, "▁Sher") == {}


def test_characters_without_a_piece_are_spelled_in_bytes():
    biasing = Biasing(PIECES, ["ñoZ"])
    space, first, second = PIECES.index("▁".encode(), 259), *(3 + byte for byte in "ñ".encode())
    row = logits()
    assert biasing.adjust([space, first], row) is row  # too few letters for a bonus
    gain = biasing.adjust([space, first, second, IDS["o"]], row) - row
    assert np.flatnonzero(gain).tolist() == [IDS["Z"]]


def test_a_mark_in_a_phrase_is_text_and_not_the_mark():
    """Else a prompt could end the text."""
    assert bonuses(Biasing(PIECES, ["Tom</s>"]), "▁Tom") == {"</s": 3}


def test_no_phrases_are_no_help():
    biasing = Biasing(PIECES, [])
    row = logits(_the=1)
    assert biasing.adjust(ids("▁the"), row) is row
    assert biasing.starts(row) == []


# Phrases that the model nearly begins


def test_only_what_the_model_nearly_says_is_a_start():
    biasing = Biasing(PIECES, ["Zarathustra", "Sherburn", "San Francisco", "Tom", "ar"])
    row = logits(_the=10, _Zar=10 - MAX_START_GAP, _Sher=9, _San=10 - MAX_START_GAP - 0.1, ath=9.9)
    assert biasing.starts(row) == ids("▁Sher ▁Zar")
    assert biasing.starts(logits(_the=1)) == []


def test_the_likeliest_token_is_no_start_and_there_are_not_many():
    biasing = Biasing(PIECES, ["Zarathustra", "Sherburn", "San Francisco", "Tom"])
    row = logits(_Zar=10, _Sher=9, _San=9.5, _Tom=9.2)
    assert biasing.starts(row) == ids("▁San ▁Tom")
    assert len(biasing.starts(logits(_the=10, _Zar=9, _Sher=9, _San=9, _Tom=9))) == MAX_STARTS


def test_a_phrase_is_taken_if_the_model_gives_up_little_by_it():
    model = Model(
        {
            "▁Zar": logits(ath=4, ar=4.5),
            "▁Zar ath": logits(ustra=5),
            "▁Zar ath ustra": logits(_the=3, e=3.5),
        }
    )
    row = logits(_the=10, _Zar=9)
    said = Biasing(PIECES, ["Zarathustra"]).lookahead(ids("▁the"), row, model.probe)
    assert [token.token_id for token in said] == ids("▁Zar ath ustra")
    # The rows are those that the tokens are chosen from, so that the caller can tell how likely they were.
    assert [float(token.row[token.token_id]) for token in said] == [9, 4, 5]
    assert said[0].row is row


@pytest.mark.parametrize(
    ("start", "second", "end", "is_taken"),
    [(1, 0, 0, True), (0.5, 1, MAX_REGRET - 1.5, True), (1, 1, MAX_REGRET - 1.9, False), (2, MAX_REGRET, 0, False)],
)
def test_what_is_given_up_is_added_up_over_the_phrase(start: float, second: float, end: float, is_taken: bool):
    model = Model({"▁Sher": logits(burn=5 - second, lock=5), "▁Sher burn": logits(_the=5 - end, e=5)})
    phrase = lookahead(Biasing(PIECES, ["Sherburn"]), logits(_the=10, _Sher=10 - start), model)
    assert phrase == ("▁Sher burn" if is_taken else "")


def test_a_phrase_that_has_become_unlikely_is_not_followed_to_its_end():
    model = Model({"▁Zar": logits(ar=9, ath=0)})
    assert lookahead(Biasing(PIECES, ["Zarathustra"]), logits(_the=10, _Zar=9), model) == ""
    assert model.asked == [tuple(ids("▁Zar"))]


@pytest.mark.parametrize("end", ["_the", ",", "'", "s", "</s>"])
def test_a_phrase_ends_with_its_word(end: str):
    """A plural and a possessive are still the word."""
    model = Model({"▁Tom": logits(**{end: 9})})
    assert lookahead(Biasing(PIECES, ["Tom"]), logits(_the=10, _Tom=9), model) == "▁Tom"


@pytest.mark.parametrize("end", ["ar", "é", "b"])
def test_the_beginning_of_another_word_is_no_phrase(end: str):
    model = Model({"▁Tom": logits(**{end: 9, "_the": 0})})
    assert lookahead(Biasing(PIECES, ["Tom"]), logits(_the=10, _Tom=9), model) == ""


def test_the_likeliest_of_several_phrases_is_taken():
    after = logits(_the=9)
    model = Model({"▁Sher": logits(lock=5, burn=4), "▁Sher lock": after, "▁Sher burn": after, "▁Tom": after})
    biasing = Biasing(PIECES, ["Sherburn", "Sherlock", "Tom"])
    assert lookahead(biasing, logits(_the=10, _Sher=9, _Tom=8.5), model) == "▁Sher lock"
    assert lookahead(biasing, logits(_the=10, _Sher=8.5, _Tom=9), model) == "▁Tom"


@pytest.mark.parametrize(("following", "phrase"), [("_Francisco", "▁San ▁Francisco"), ("_the", "▁San")])
def test_the_longer_of_two_phrases_is_taken_if_the_model_goes_on(following: str, phrase: str):
    model = Model({"▁San": logits(**{following: 9}), "▁San ▁Francisco": logits(_the=9)})
    assert lookahead(Biasing(PIECES, ["San", "San Francisco"]), logits(_the=10, _San=9), model) == phrase


@pytest.mark.parametrize(
    ("after", "phrase"),
    [("▁Tom", ""), ("▁the ▁Tom", ""), ("▁Tom ,", ""), ("▁Tom ▁the ▁the", "▁Tom"), ("", "▁Tom"), ("▁San", "▁Tom")],
)
def test_what_has_just_been_said_is_not_said_again(after: str, phrase: str):
    model = Model({"▁Tom": logits(_the=9)})
    assert lookahead(Biasing(PIECES, ["Tom"]), logits(_the=10, _Tom=9), model, after) == phrase


def test_the_model_is_asked_only_where_there_is_a_start():
    model = Model({})
    assert lookahead(Biasing(PIECES, ["Tom", "Zarathustra"]), logits(_the=10, _Tom=1), model) == ""
    assert model.asked == []


# The embedded model's vocabulary


@pytest.mark.parametrize(
    ("phrase", "segmented"),
    [
        ("calligraphy", "▁call ig raph y"),
        ("Strasburg", "▁Str as burg"),
        ("psychotherapeutic", "▁psych other ape ut ic"),
        ("strenuously", "▁str enu ously"),
        ("other cities", "▁other ▁cities"),
    ],
)
def test_the_embedded_vocabulary_is_segmented_as_the_model_does(phrase: str, segmented: str):
    """The segmentations are the model's own, of real speech."""
    pieces = list(parse_tokenizer((embedded_folder() / "tokenizer.bin").read_bytes()))
    token_ids = {piece.decode(errors="replace"): token_id for token_id, piece in enumerate(pieces)}
    said = [token_ids[piece] for piece in segmented.split()]
    letters = np.cumsum([len(piece.strip("▁")) for piece in segmented.split()])
    biasing = Biasing(pieces, [phrase])
    row = np.zeros(len(pieces), np.float32)
    for length in range(1, len(said)):
        gain = biasing.adjust(said[:length], row)
        assert np.flatnonzero(gain).tolist() == [said[length]]
        assert gain[said[length]] == min(letters[length] - FREE_LETTERS, MAX_BONUS)
    assert biasing.adjust(said, row) is row


# What a client gives


@pytest.mark.parametrize(
    ("prompt", "phrases"),
    [
        (None, []),
        ("", []),
        ("Zarathustra", ["Zarathustra"]),
        (
            "ZyntriQix, Digique Plus, CynapseFive, VortiQore V8",
            ["ZyntriQix", "Digique Plus", "CynapseFive", "VortiQore V8"],
        ),
        ("Names: Whittemore, San Francisco and Lübeck.", ["Names", "Whittemore", "San Francisco", "Lübeck"]),
        ("crayfish, lobster à la Newberg", ["crayfish", "lobster à la Newberg"]),
        ("The meeting was about GPT-4o, DALL·E and AT&T.", ["GPT-4o", "DALL·E", "AT&T"]),
        ("Yesterday Mr Hale met Sherburn's son. He said so.", ["Yesterday", "Mr Hale", "Sherburn"]),
        ("It is about psychotherapeutic care", ["psychotherapeutic"]),
        ("Umm, let me think like, hmm... Okay, here's what I'm thinking.", ["hmm"]),
        ("I don't think I'll go; Don't you? 1846, 20 of 3pm", []),
        ('the book "Moby-Dick" by Melville', ["Moby-Dick", "Melville"]),
        ("Ritz\nSavoy\n", ["Ritz", "Savoy"]),
        ("we saw Rome, and Rome saw us", ["Rome"]),
    ],
)
def test_names_and_terms_of_a_prompt(prompt: str | None, phrases: list[str]):
    assert phrases_of(Transcription(prompt=prompt)) == tuple(phrases)


def test_keywords_come_first_and_as_they_are():
    options = Transcription(keywords=["the", "Tom Hale", "the"], prompt="Sherburn, Tom Hale")
    assert phrases_of(options) == ("the", "Tom Hale", "Sherburn")
