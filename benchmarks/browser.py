"""How soon the caption stands on the page after the end of speech, over WebSocket and over WebRTC, in a real Chromium.

    python benchmarks/browser.py [--runs 10] [--chromium PATH]

The playground of a server of its own plays one recording again and again, by turns over either transport. It is what
the page does with any file: in real time, over a track or in appends. Two figures for each run:

- **end of speech → caption**: from the moment when the last sample of speech left the page's player (on the page's own
  clock: `start()` of the player, and the sample's place in the recording) until the item is marked as completed in the
  document. It holds the turn's 500 ms of silence, the way of the sound, decoding and the page's work.
- **`speech_stopped` → `completed`**: what the page shows as "Final".
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import wave
from pathlib import Path

import numpy as np
from playwright.sync_api import Browser, expect, sync_playwright
from rich.console import Console
from rich.table import Table

from auricle.audio.files import read_audio
from auricle.audio.formats import SAMPLE_RATE, Samples
from auricle.engines.moonshine import embedded_folder
from auricle.local_server import started_server

SPEECH_S = 4.8
"""Of the recording in the model's wheel: one sentence, after which the turn ends."""
SILENCE_S = 2.0
LOUD = 0.02
"""What counts as speech, as a share of full scale; the recording's own noise is at 0.001."""
WAIT_MS = 60_000
TRANSPORTS = ("websocket", "webrtc")

CLOCKS = """
const start = AudioBufferSourceNode.prototype.start;
AudioBufferSourceNode.prototype.start = function (...values) {
  globalThis.startedAt = performance.now();
  return start.apply(this, values);
};
new MutationObserver(() => {
  const done = document.querySelectorAll('#transcript > [data-status=completed] .item-text:not(:has(.no-words))');
  if (done.length) globalThis.captionAt ??= performance.now();
}).observe(document, { subtree: true, childList: true, attributes: true, attributeFilter: ['data-status'] });
"""


def recording() -> tuple[Samples, float]:
    """One sentence and silence, at 16 kHz, and where its speech ends, in seconds."""
    speech = read_audio(embedded_folder().parent / "two_cities.wav")[: round(SPEECH_S * SAMPLE_RATE)]
    end_s = (np.flatnonzero(np.abs(speech) > LOUD)[-1] + 1) / SAMPLE_RATE
    return np.concatenate([speech, np.zeros(round(SILENCE_S * SAMPLE_RATE), np.float32)]), float(end_s)


def run(browser: Browser, root_url: str, path: Path, transport: str) -> tuple[float, float, str]:
    """One run on a fresh page: when the caption came, on the recording's clock, `Final`, both in ms; and the text."""
    with browser.new_context() as context:
        page = context.new_page()
        page.add_init_script(CLOCKS)
        page.goto(root_url)
        page.locator("label:has([value=file])").click()
        page.locator("#file").set_input_files(path)
        page.locator("[data-source=file] .heard").uncheck()
        page.locator(f"label:has([value={transport}])").click()
        page.locator("#start").click()
        expect(page.locator("#state")).to_have_attribute("data-phase", "done", timeout=WAIT_MS)
        caption_ms = page.evaluate("captionAt - startedAt")
        with page.expect_download() as download:
            page.get_by_role("button", name="Download as JSON").click()
        items = json.loads(Path(download.value.path()).read_text())["items"]
    [item] = [item for item in items if item["text"]]
    return caption_ms, item["final_latency_ms"], item["text"]


def percentile_ms(values: list[float], percent: float) -> str:
    return f"{np.percentile(values, percent):.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10, help="over each transport")
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="else Playwright's own")
    arguments = parser.parse_args()
    samples, end_s = recording()
    caption_ms: dict[str, list[float]] = {transport: [] for transport in TRANSPORTS}
    final_ms: dict[str, list[float]] = {transport: [] for transport in TRANSPORTS}
    with (
        tempfile.TemporaryDirectory() as folder,
        started_server() as (base_url, _),
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=arguments.chromium, args=["--no-sandbox"]) as browser,
    ):
        path = Path(folder) / "speech.wav"
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
            file.writeframes((samples * 32_767).astype("<i2").tobytes())
        for number in range(-1, arguments.runs):  # the first of each only warms up
            for transport in TRANSPORTS:
                caption, final, text = run(browser, base_url.removesuffix("/v1"), path, transport)
                print(transport, number, f"{caption - end_s * 1000:.0f} ms, {final} ms: {text}", flush=True)
                if number >= 0:
                    caption_ms[transport].append(caption - end_s * 1000)
                    final_ms[transport].append(final)
    table = Table("ms, p50 / p95", *TRANSPORTS, "WebRTC's p50 over WebSocket's")
    for name, values in (("end of speech → caption", caption_ms), ("speech_stopped → completed", final_ms)):
        cells = [f"{percentile_ms(values[one], 50)} / {percentile_ms(values[one], 95)}" for one in TRANSPORTS]
        table.add_row(name, *cells, f"{np.median(values['webrtc']) - np.median(values['websocket']):+.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
