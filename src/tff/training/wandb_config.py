"""The configuration as it may be shown to others."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from tff.report.page import plain

_SECRET = re.compile(r"(^|_)(key|token|secret|password|passwd|credentials?)s?$", re.IGNORECASE)
_LOGIN = re.compile(r"(?<=://)[^/@\s]+@")  # https://user:password@host
_SHORTEST = 6  # a shorter value of a variable would be found in any text
HIDDEN = "(hidden)"


def concealed(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration in plain containers, its secrets hidden.

    Hidden are the values of options whose name ends with key, token, secret, password or
    credentials, the values of environment variables of such names wherever they appear, and what
    stands before the @ of an address.
    """
    secrets = sorted(
        (v for k, v in os.environ.items() if _SECRET.search(k) and len(v) >= _SHORTEST),
        key=len,
        reverse=True,
    )
    shown = _shown(plain(config), secrets)
    return shown if isinstance(shown, dict) else {}


def _shown(value: Any, secrets: list[str]) -> Any:
    if isinstance(value, dict):
        return {
            _text(key, secrets): HIDDEN
            if isinstance(item, str) and item and _SECRET.search(key)
            else _shown(item, secrets)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_shown(item, secrets) for item in value]
    return _text(value, secrets) if isinstance(value, str) else value


def _text(text: str, secrets: list[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return _LOGIN.sub(f"{HIDDEN}@", text)
