"""A server of our own for one command: `auricle listen`, and the benchmarks."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from auricle.errors import AuricleError

_READY = re.compile(r"listens at (\S+)")
_STOP_TIMEOUT_S = 15


@contextmanager
def started_server(*flags: str) -> Iterator[tuple[str, int]]:
    """Start `auricle serve` on a free port; its settings are the environment's, but for the flags.

    Yields its base URL and process id. Raises AuricleError: it does not start. For the main thread, whose signals it
    takes: the server ends with this process, unless that is killed outright.
    """
    fixed = ("--host", "127.0.0.1", "--port", "0", "--log-level", "warning")
    command = [sys.executable, "-m", "auricle", "serve", *fixed, *flags]
    with tempfile.TemporaryFile("w+") as log, _unwinding_signals():
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            process_group=0,  # Ctrl-C is for us: the server ends when we have all that we want of it
        )
        try:
            assert process.stdout is not None
            ready = next((match for line in process.stdout if (match := _READY.search(line))), None)
            if ready is None:
                log.seek(0)
                told = [line.strip() for line in log if line.strip()]
                raise AuricleError(f"The server did not start: {told[-1] if told else 'it said nothing'}")
            yield ready[1], process.pid
        finally:
            process.terminate()
            try:
                process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout:
                process.stdout.close()


@contextmanager
def _unwinding_signals() -> Iterator[None]:
    """What would end this process on the spot raises SystemExit instead."""

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    deadly = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) == signal.SIG_DFL]
    for number in deadly:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in deadly:
            signal.signal(number, signal.SIG_DFL)
