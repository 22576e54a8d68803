"""Who may connect: API keys, and ephemeral keys that carry their session with them."""

from __future__ import annotations

import hmac
import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jwt

from auricle.errors import ClientError
from auricle.protocol.dialect import DialectName

logger = logging.getLogger(__name__)

EPHEMERAL_PREFIX = "ek_"
MAX_KEY_LENGTH = 6_000
"""Characters of an ephemeral key. It has to fit in a header line, for which WebSocket servers allow 8 KiB."""

_ALGORITHM = "HS256"
_AUDIENCE = "auricle/realtime"


@dataclass(frozen=True, slots=True)
class EphemeralKey:
    """A short-lived key for a browser or a device. It can open any number of sessions until it expires."""

    dialect: DialectName
    settings: Mapping[str, Any]
    """The session's settings, as an update in this dialect would give them."""
    expires_at: int
    """Unix time, seconds."""


class Authenticator:
    """Checks keys and makes ephemeral ones, which are signed (JWT, RFC 7519), so that no replica has to store any."""

    def __init__(self, api_keys: Sequence[str], signing_secret: str | None) -> None:
        """Without `api_keys` every key is accepted, and so is none; ephemeral keys are checked all the same."""
        self._api_keys = [key.encode() for key in api_keys]
        if signing_secret is None:
            logger.warning(
                "No signing secret is set: ephemeral keys end with this process. "
                "Set AURICLE_SIGNING_SECRET to keep them across restarts and replicas."
            )
            signing_secret = secrets.token_urlsafe(32)
        self._signing_secret = signing_secret

    def check(self, key: str | None) -> EphemeralKey | None:
        """Accept a key. Returns what it carries if it is an ephemeral one.

        Raises ClientError with status 401: the key is missing, unknown, expired or forged.
        """
        if key is not None and key.startswith(EPHEMERAL_PREFIX):
            return self._open(key)
        if not self._api_keys:
            return None
        if not key:
            raise ClientError(None, "Missing bearer or basic authentication in header", status=401)
        # Every key is compared, so the time it takes doesn't tell which one came close.
        matches = [hmac.compare_digest(key.encode(), known) for known in self._api_keys]
        if not any(matches):
            raise ClientError("invalid_api_key", f"Incorrect API key provided: {_masked(key)}.", status=401)
        return None

    def mint(self, ephemeral: EphemeralKey) -> str:
        """The key itself. Raises ClientError: the session's settings are too large to be carried in one."""
        claims = {
            "aud": _AUDIENCE,
            "exp": ephemeral.expires_at,
            "dialect": ephemeral.dialect,
            "session": ephemeral.settings,
        }
        key = EPHEMERAL_PREFIX + jwt.encode(claims, self._signing_secret, _ALGORITHM)
        if len(key) > MAX_KEY_LENGTH:
            raise ClientError(
                "string_above_max_length",
                f"The session's settings are too large for an ephemeral key, which carries them: it would have "
                f"{len(key)} characters of at most {MAX_KEY_LENGTH}. Shorten the prompt or the keywords, or send them "
                "in an update once connected.",
                "session",
            )
        return key

    def _open(self, key: str) -> EphemeralKey:
        if len(key) > MAX_KEY_LENGTH:
            raise ClientError(
                "invalid_api_key", "The ephemeral key is too long to be one of this server's.", status=401
            )
        try:
            claims = jwt.decode(
                key.removeprefix(EPHEMERAL_PREFIX),
                self._signing_secret,
                [_ALGORITHM],
                audience=_AUDIENCE,
                options={"require": ["exp"]},
            )
        except jwt.ExpiredSignatureError:
            raise ClientError("invalid_api_key", "The ephemeral key has expired. Mint a new one.", status=401) from None
        except jwt.InvalidTokenError:
            raise ClientError(
                "invalid_api_key",
                f"Incorrect ephemeral key provided: {_masked(key)}. This server did not make it.",
                status=401,
            ) from None
        return EphemeralKey(claims["dialect"], claims["session"], claims["exp"])


def _masked(key: str) -> str:
    return f"{key[:3]}***{key[-4:]}" if len(key) > 12 else "***"
