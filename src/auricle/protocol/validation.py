"""From pydantic's complaints to the errors of OpenAI's API: code, message and the path of the parameter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from auricle.errors import ClientError

T = TypeVar("T")

WRONG_SESSION_KIND = "wrong_session_kind"
"""Our own complaint: the session object is not one of a transcription session. The wire names no param for it."""

_OWN_CODES = frozenset({"invalid_value", "string_above_max_length"})
"""Types of our own complaints that are the wire's codes already."""

_TAGS = frozenset({"audio/pcm", "audio/pcmu", "audio/pcma", "server_vad", "semantic_vad"})
"""Kinds of tagged unions, which pydantic writes into the path of an error and the wire does not have there."""

_EXPECTED = {
    "string_type": "a string",
    "bytes_type": "a string",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a decimal",
    "finite_number": "a finite decimal",
    "bool_type": "a boolean",
    "list_type": "an array",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
}

_NAMES = {
    bool: "a boolean",
    int: "an integer",
    float: "a decimal",
    str: "a string",
    list: "an array",
    dict: "an object",
}


def one_of(values: Iterable[str]) -> str:
    """The values as OpenAI lists them: `'a', 'b', and 'c'`."""
    quoted = [f"'{value}'" for value in values]
    if len(quoted) < 3:
        return " and ".join(quoted)
    return ", ".join(quoted[:-1]) + f", and {quoted[-1]}"


def validated(adapter: TypeAdapter[T], value: object, path: str = "") -> T:
    """`value` as the adapter's type. `path` is where it stands on the wire.

    Raises ClientError: the first thing that is wrong with it.
    """
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise client_error(error.errors(include_url=False), path) from None


def client_error(complaints: Sequence[ErrorDetails], path: str = "") -> ClientError:
    """What pydantic first complained of, as OpenAI would word it."""
    # Unknown keys go first: a misspelt required field is better told by its name than by its absence.
    first = min(complaints, key=lambda complaint: complaint["type"] != "extra_forbidden")
    return _client_error(first, _param(path, first["loc"]))


def joined_path(path: str, name: str) -> str:
    """The path of a field inside the object at `path`, which is empty for the outermost one."""
    return f"{path}.{name}" if path else name


def _param(path: str, location: tuple[str | int, ...]) -> str:
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part not in _TAGS:
            path = joined_path(path, part)
    return path


def _client_error(details: ErrorDetails, param: str) -> ClientError:
    kind, given, context = details["type"], details["input"], details.get("ctx", {})
    if kind == WRONG_SESSION_KIND:
        return ClientError("invalid_parameter", details["msg"])
    if kind in _OWN_CODES:
        return ClientError(kind, details["msg"], param)
    if kind == "extra_forbidden":
        return ClientError("unknown_parameter", f"Unknown parameter: '{param}'.", param)
    if kind in ("missing", "union_tag_not_found"):
        if kind == "union_tag_not_found":
            if not isinstance(given, dict):
                return _wrong_type(param, "an object", given)
            param = joined_path(param, "type")
        return ClientError("missing_required_parameter", f"Missing required parameter: '{param}'.", param)
    if kind == "union_tag_invalid":
        supported = [tag.strip(" '") for tag in context["expected_tags"].split(",")]
        return _unsupported(param + ".type", context["tag"], supported)
    if kind == "literal_error":
        if not isinstance(given, str):
            return _wrong_type(param, "a string", given)
        return _unsupported(
            param, given, [value.strip("'") for value in context["expected"].replace(" or ", ", ").split(", ")]
        )
    if kind in _EXPECTED:
        return _wrong_type(param, _EXPECTED[kind], given)
    return _out_of_range(kind, given, context, param) or ClientError(
        "invalid_value", f"Invalid '{param}': {details['msg']}", param
    )


def _unsupported(param: str, given: str, supported: Iterable[str]) -> ClientError:
    return ClientError("invalid_value", f"Invalid value: '{given}'. Supported values are: {one_of(supported)}.", param)


def _wrong_type(param: str, expected: str, given: object) -> ClientError:
    name = _NAMES.get(type(given), "null")
    place = f" for '{param}'" if param else ""
    message = f"Invalid type{place}: expected {expected}, but got {name} instead."
    return ClientError("invalid_type", message, param or None)


def _out_of_range(kind: str, given: Any, context: dict[str, Any], param: str) -> ClientError | None:
    if kind in ("greater_than_equal", "less_than_equal"):
        below = kind == "greater_than_equal"
        sign, bound = (">=", context["ge"]) if below else ("<=", context["le"])
        number = "integer" if isinstance(bound, int) else "decimal"
        side, code = ("below minimum", "below_min") if below else ("above maximum", "above_max")
        return ClientError(
            f"{number}_{code}_value",
            f"Invalid '{param}': {number} {side} value. Expected a value {sign} {bound:g}, but got {given} instead.",
            param,
        )
    if kind == "string_too_long":
        return ClientError(
            "string_above_max_length",
            f"Invalid '{param}': string too long. Expected a string with maximum length {context['max_length']}, "
            f"but got a string with length {len(given)} instead.",
            param,
        )
    if kind == "too_long":
        return ClientError(
            "array_above_max_length",
            f"Invalid '{param}': array too long. Expected an array with maximum length {context['max_length']}, "
            f"but got an array with length {len(given)} instead.",
            param,
        )
    if kind == "too_short":
        return ClientError(
            "empty_array",
            f"Invalid '{param}': empty array. Expected an array with minimum length {context['min_length']}, "
            "but got an empty array instead.",
            param,
        )
    return None
