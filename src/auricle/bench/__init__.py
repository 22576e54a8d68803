"""`auricle bench`: a load generator and judge for any server of the protocol. Knows nothing of the server's inside.

    corpus.py         which recordings are played, and what is said in them
    options.py        what was asked for on the command line
    server.py         starting a server of our own; its CPU time and memory
    session_run.py    plays one recording to the server and records every event with its time
    load.py           many of them at a time, and silent sessions beside
    promises.py       what in the events of a session is against the protocol
    latency.py        how long after its audio was sent each thing was told
    scoring.py        word error rates
    capacity.py       the search for the number of sessions that a machine carries
    report.py, tables.py, charts.py    what it all comes to: numbers and JSON, text, pictures
    command.py        the command itself

What each number means: docs/bench.md. Its packages are an extra, since a server needs none of them.
"""

from __future__ import annotations

from importlib.util import find_spec

from auricle.errors import AuricleError

EXTRA = ("jiwer", "matplotlib", "psutil", "whisper_normalizer")
"""What the extra `bench` installs, by the names it is imported by."""


def require_extra() -> None:
    """Raises AuricleError: some of the extra's packages are not installed."""
    missing = [name.replace("_", "-") for name in EXTRA if find_spec(name) is None]
    if missing:
        raise AuricleError(
            f"auricle bench needs packages that are not installed ({', '.join(missing)}). "
            "Install them with: pip install 'auricle[bench]'"
        )
