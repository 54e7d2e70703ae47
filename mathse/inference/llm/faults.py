"""What a failure of a request means: wait and send it again, give this row up, or end the run.

``Fault.whose`` has one of three values: a fault of the moment passes, one of the row concerns no other row, one of the
run would happen to every row.

=================================================  ====================================================================
timeout, broken connection, body cut or malformed   the moment's
408, 409, 425, 429, 5xx                             the moment's; Retry-After is obeyed, up to ``MAX_WAIT``
429 because the account is empty                    the run's
401, 402, 403, 404, and any other 4xx               the run's: the next row would fail too
400, 413, 422 about this row's length or content    the row's
=================================================  ====================================================================
"""

from __future__ import annotations

import email.utils
import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0  # seconds between tries; doubled each time
MAX_WAIT = 600.0  # seconds; a server that asks for more is asked again by another start
MAX_MESSAGE = 300  # characters of a server's own message in ours
KEY_LENGTH = 8  # a shorter key is a placeholder such as "none", and no secret
NO_CONNECTION = "no connection"

_LOOKS_LIKE_A_KEY = re.compile(r"\bsk-[\w-]{12,}")
_LATER = {408, 409, 425, 429}
_EMPTY_ACCOUNT = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}
_ROW_CODES = {
    "context_length_exceeded",
    "string_above_max_length",
    "content_filter",
    "content_policy_violation",
    "invalid_image",
    "invalid_image_format",
    "image_parse_error",
    "image_too_large",
    "invalid_base64",
    "exceed_context_size_error",
}
# About the row: its length, its picture's data, a filter. Not "this model takes no images", which all rows would meet.
_ROW_PATTERN = re.compile(
    r"context (?:length|size|window)|maximum (?:\w+ )?length|too (?:long|many tokens|large)|exceeds? the (?:max|avail)"
    r"|content (?:filter|polic|management)|flagged|moderation|(?:identify|decode|parse|open|load) (?:\w+ )?image"
    r"|image (?:is )?(?:corrupt|broken|invalid|too|data)",
    re.IGNORECASE,
)
_ABOUT_ROWS = {400, 413, 422}


@dataclass(frozen=True)
class Fault:
    """``whose``: "moment", "row" or "run" (see the table above). ``message``: the server's, without secrets.

    ``status``: HTTP's, or None where there was no answer. ``wait``: seconds the server asks for.
    """

    whose: Literal["moment", "row", "run"]
    message: str
    status: int | None = None
    code: str = ""
    wait: float | None = None

    @property
    def reached(self) -> bool:
        """Whether something at the other end took the request."""
        return not self.message.startswith(NO_CONNECTION)

    def pause(self, tried: int) -> float:
        """Seconds until the next try: as long as the server asks for, else longer each time. Part of it is random, so
        that requests that failed together are not sent again together."""
        longest = min(LONGEST_WAIT, FIRST_WAIT * 2**tried)
        return max(self.wait or 0.0, longest * random.uniform(0.5, 1.0))


class Broken(ValueError):
    """A body that was cut, is no JSON, or has not the form of a chat completion."""


def fault_of(error: Exception, key: str | None) -> Fault:
    """Read a failure of the ``openai`` package, a timeout or a ``Broken`` body; ``key`` is removed from its message."""
    import openai

    if isinstance(error, openai.APIStatusError):
        body = error.body if isinstance(error.body, Mapping) else {}
        return fault_of_body(error.status_code, body or {"message": error.message}, key, error.response.headers)
    if isinstance(error, (TimeoutError, openai.APITimeoutError)):
        return Fault("moment", "no answer within the timeout")
    if isinstance(error, Broken):
        return Fault("moment", _printable(str(error), key))
    return Fault("moment", _printable(f"{NO_CONNECTION} ({error.__cause__ or error})", key))


def fault_of_body(
    status: int, body: Mapping[str, Any], key: str | None, headers: Mapping[str, str] | None = None
) -> Fault:
    """The same for a status and an error object from a batch's files."""
    inner = body.get("error")
    body = inner if isinstance(inner, Mapping) else body
    code = str(body.get("code") or body.get("type") or "")
    reason = str(body.get("message") or body.get("detail") or inner or code or "no reason given")
    message = _printable(f"{status}: {reason}", key)
    wait = retry_after(headers or {})
    if code in _EMPTY_ACCOUNT or (wait or 0) > MAX_WAIT:
        return Fault("run", message, status, code, wait)
    if status in _LATER or status >= 500:
        return Fault("moment", message, status, code, wait)
    about_row = status in _ABOUT_ROWS and (code in _ROW_CODES or _ROW_PATTERN.search(reason))
    flagged = status == 403 and re.search("flagged|moderation", reason, re.IGNORECASE)
    return Fault("row" if about_row or status == 413 or flagged else "run", message, status, code)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from ``retry-after-ms`` or from ``retry-after`` (a number, or a date)."""
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            return max(0.0, float(value) / unit)
        except ValueError:
            pass
        date = email.utils.parsedate_tz(value)
        if date is not None:
            return max(0.0, email.utils.mktime_tz(date) - time.time())
    return None


def without_key(text: str, key: str | None) -> str:
    """``text`` without the key, in case a server repeats it."""
    return text.replace(key, "[key]") if key and len(key) >= KEY_LENGTH else text


def _printable(text: str, key: str | None) -> str:
    text = _LOOKS_LIKE_A_KEY.sub("[key]", " ".join(without_key(text, key).split()))
    return text if len(text) <= MAX_MESSAGE else f"{text[:MAX_MESSAGE]}..."
