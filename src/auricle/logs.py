"""How the log is written: a line for people, or an object for machines. Never audio, text or keys."""

from __future__ import annotations

import logging

from pythonjsonlogger.json import JsonFormatter

_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


class _FieldsFormatter(logging.Formatter):
    """Writes a record's extra fields after its message, as `name=value`."""

    def format(self, record: logging.LogRecord) -> str:
        extra = {name: value for name, value in vars(record).items() if name not in _STANDARD_FIELDS}
        return " ".join([super().format(record), *(f"{name}={value!r}" for name, value in extra.items())])


def configure_logging(level: str, *, as_json: bool) -> None:
    """Log to standard error from now on."""
    handler = logging.StreamHandler()
    if as_json:
        handler.setFormatter(
            JsonFormatter("%(asctime)s %(levelname)s %(name)s %(message)s", rename_fields={"levelname": "level"})
        )
    else:
        handler.setFormatter(_FieldsFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # What uvicorn tells at this level (its process id, every handshake) is noise beside one line a session.
    # So is every step of a call's connection, and what clients send that can't be read, which they are told.
    least = {"uvicorn": logging.WARNING} | dict.fromkeys(("aioice", "aiortc", "python_multipart"), logging.ERROR)
    for name, least_level in least.items():
        logging.getLogger(name).setLevel(max(least_level, logging.getLogger().level))
