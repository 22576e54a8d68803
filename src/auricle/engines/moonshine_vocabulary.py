"""Moonshine's pieces of text: out of `tokenizer.bin`, and token ids to text."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence

from auricle.engines.base import EngineError, Token

END_ID = 2
"""The tokens up to this one are marks of the model."""


class Vocabulary:
    """The pieces of text behind token ids. Owned by the model."""

    def __init__(self, data: bytes) -> None:
        """`data` is a `tokenizer.bin`. Raises EngineError if it ends inside a token."""
        self.pieces = tuple(parse_tokenizer(data))
        """The bytes of each token; `▁` is a space."""

    def __len__(self) -> int:
        return len(self.pieces)

    def tokens(self, ids: Sequence[int], logprobs: Sequence[float]) -> tuple[Token, ...]:
        """Ids and their log probabilities as pieces of text, without special tokens.

        A character that is spread over several byte tokens becomes one token with the sum of their log probabilities.
        Bytes that form no character are left out.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("ignore")
        tokens: list[Token] = []
        part: list[int] = []
        logprob = 0.0
        for token_id, token_logprob in zip(ids, logprobs, strict=True):
            piece = self.pieces[token_id]
            if _is_special(token_id, piece):
                continue
            logprob += token_logprob
            part.append(token_id)
            text = decoder.decode(piece)
            if text:
                tokens.append(Token(text.replace("▁", " "), logprob, ids=tuple(part)))
                part, logprob = [], 0.0
        return tuple(tokens)


def parse_tokenizer(data: bytes) -> Iterator[bytes]:
    """The pieces in `tokenizer.bin`: before each its length, in one byte if below 128, else in two, low bits first."""
    position = 0
    while position < len(data):
        length = data[position]
        position += 1
        if length >= 128:
            length = length % 128 + 128 * int.from_bytes(data[position : position + 1])
            position += 1
        if position + length > len(data):
            raise EngineError("The Moonshine tokenizer file is damaged")
        yield data[position : position + length]
        position += length


def _is_special(token_id: int, piece: bytes) -> bool:
    """Whether a token is a mark of the model (`<unk>`, start, end, `<<ST_…>>`) and not text."""
    return token_id <= END_ID or (piece.startswith(b"<<ST_") and piece.endswith(b">>"))
