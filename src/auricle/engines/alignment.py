"""When the tokens of a known text were said, from where a decoder's attention lay. Pure numbers: knows no model.

A decoder that has learnt to write down speech looks at a word in the audio while it takes in that word, and some of its
attention heads do little else. So when the text is known, the path through the audio that gathers most of their
attention, token after token, says when each was said. That is how Whisper's word times are found (its authors' code;
Louradour's whisper-timestamped, 2023), with dynamic time warping (Sakoe and Chiba, 1978).

Theirs lets several tokens share a frame, scales each frame to the same deviation over all tokens, and smooths over
time. Here each frame is one token's, and the attention is taken as it is: with the heads that we have, the rest made it
no better (`docs/design.md` has the figures).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray


def boundaries(attention: NDArray[np.floating]) -> NDArray[np.intp]:
    """With which frame each token begins, and behind them where the last one ends: (tokens + 1,), rising.

    `attention` is (tokens, frames): how much of it each token gives to each frame. Each frame is given to a token, the
    tokens in their order, each at least one frame, so that they give the most attention to their own. Where there are
    more tokens than frames, they are spread out evenly.
    """
    tokens, frames = attention.shape
    if tokens > frames or not tokens:
        return np.linspace(0, frames, tokens + 1).round().astype(np.intp)
    # How much is gathered at most if a token has the frame that was come to.
    gathered = np.full(tokens, -np.inf)
    gathered[0] = attention[0, 0]
    is_first = np.zeros((frames, tokens), np.bool_)
    """Whether, on the best way to a token at a frame, that is its first frame."""
    for frame in range(1, frames):
        of_the_one_before = np.concatenate([[-np.inf], gathered[:-1]])
        is_first[frame] = of_the_one_before > gathered
        gathered = np.maximum(gathered, of_the_one_before) + attention[:, frame]
    found = np.zeros(tokens + 1, np.intp)
    found[tokens] = frames
    token = tokens - 1
    for frame in range(frames - 1, 0, -1):
        if is_first[frame, token]:
            found[token] = frame
            token -= 1
    return found


def spans_of(sizes: Sequence[int], bounds: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """From the boundaries of a decoder's own tokens, one more than there are, the spans of ours: so many of them each.

    What the boundaries are counted in, the spans are too.
    """
    ends = accumulate(sizes, initial=0)
    return tuple((bounds[begin], bounds[end]) for begin, end in pairwise(ends))
