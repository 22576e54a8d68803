"""Ids of sessions, items and events."""

import secrets


def new_id(prefix: str) -> str:
    """`prefix_` and 21 random characters, the form of OpenAI's ids."""
    return f"{prefix}_{secrets.token_urlsafe(16)[:21]}"
