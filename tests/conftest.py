"""Fixtures that many tests share: a real server in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

_READY = re.compile(r"Auricle listens at (\S+)")
START_TIMEOUT_S = 90


@dataclass
class RunningServer:
    """A server process. `base_url` ends in `/v1`."""

    process: subprocess.Popen[str]
    base_url: str
    output: list[str] = field(default_factory=list)
    """Lines of standard output and error so far."""

    @property
    def socket_url(self) -> str:
        """The Realtime socket without a query."""
        return self.base_url.replace("http", "ws", 1) + "/realtime"

    @property
    def root_url(self) -> str:
        return self.base_url.removesuffix("/v1")

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 10) -> int:
        """Send a signal and wait. Returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout_s)


def start_server(*arguments: str, **variables: str) -> RunningServer:
    """Start `auricle serve` on a free port with further flags and environment variables, and wait until it is ready."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AURICLE_")} | variables
    process = subprocess.Popen(
        [sys.executable, "-m", "auricle", "serve", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,  # a process group of its own, as a terminal gives it one
    )
    server = RunningServer(process, "")
    ready = threading.Event()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            server.output.append(line.rstrip("\n"))
            if match := _READY.search(line):
                server.base_url = match[1]
                ready.set()
        process.stdout.close()
        ready.set()

    threading.Thread(target=read, daemon=True).start()
    assert ready.wait(START_TIMEOUT_S), "the server did not get ready"
    if not server.base_url:
        raise RuntimeError("the server ended: " + "\n".join(server.output))
    return server


@pytest.fixture(scope="session")
def server() -> Iterator[RunningServer]:
    """One server with default settings for all tests that only talk to it."""
    running = start_server()
    yield running
    running.stop()


@pytest.fixture
def server_with() -> Iterator[Callable[..., RunningServer]]:
    """Starts servers with settings of their own, and stops them after the test."""
    started: list[RunningServer] = []

    def start(*arguments: str, **variables: str) -> RunningServer:
        started.append(start_server(*arguments, **variables))
        return started[-1]

    yield start
    for running in started:
        running.stop()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screenshots", metavar="FOLDER", help="keep pictures of the playground's states in this folder")
