"""Keywords as sherpa-onnx takes them. What they do is in `test_sherpa_streaming.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from auricle.engines.sherpa_hotwords import Hotwords


@pytest.mark.parametrize(
    ("tokens", "keywords", "expected"),
    [
        ("<blk> 0\n▁HELLO 1\nS 2\n", ["hello", "Hellos", "Hells"], "HELLO/HELLOS"),
        ("<blk> 0\n▁hello 1\ns 2\n", ["Hello hellos", "hello shell", "Hallo"], "hello hellos"),
        (
            "<blk> 0\n▁He 1\nlo 2\n▁/ 3\n: 4\n▁ 5\n",
            ["Helo", "helo", "He:lo :lo", "He/He", "/", ":"],
            "Helo/He:lo lo/He He",
        ),
        ("<blk> 0\n你 1\n好 2\n", ["你好", "您好"], "你好"),
        ("<blk> 0\n<unk> 1\nx 2\n", ["blk", "unk"], None),
        ("<blk> 0\nx 1\n", [], None),
    ],
)
def test_keywords_that_can_be_spelled_are_brought_in_the_librarys_form(
    tmp_path: Path, tokens: str, keywords: list[str], expected: str | None
) -> None:
    (tmp_path / "tokens.txt").write_text(tokens)
    assert Hotwords(tmp_path / "tokens.txt").of(keywords) == expected
