"""Failures of requests, and their scope: wait and send again, give this row up, or end the run.

=================================================  ====================================================================
timeout, broken connection, body cut or malformed   transient
408, 409, 425, 429, 5xx                             transient; Retry-After is obeyed, up to ``MAX_WAIT_SECONDS``
429 because the account is empty                    of the run
401, 402, 403, 404, and any other 4xx               of the run: the next row would fail too
400, 413, 422 about this row's length or content    of the row
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

FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 60.0  # between tries; doubled each time
MAX_WAIT_SECONDS = 600.0  # a server that asks for a longer wait is asked again by another start
MAX_MESSAGE_CHARS = 300  # of a server's own message that are quoted
NO_CONNECTION = "no connection"

_LOOKS_LIKE_A_KEY = re.compile(r"\bsk-[\w-]{12,}")
_EMPTY_ACCOUNT_CODES = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}
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
# Messages about the row: its length, its picture's data, a filter. "This model takes no images" is not among them,
# since all rows would get it.
_ROW_PATTERN = re.compile(
    r"context (?:length|size|window)|maximum (?:\w+ )?length|too (?:long|many tokens|large)|exceeds? the (?:max|avail)"
    r"|content (?:filter|polic|management)|flagged|moderation|(?:identify|decode|parse|open|load) (?:\w+ )?image"
    r"|image (?:is )?(?:corrupt|broken|invalid|too|data)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Fault:
    """A failure of a request.

    Args:
        scope: see the table above.
        message: of the server, without secrets.
        status: of HTTP; None: there was no answer.
        code: the server's name of the error.
        wait: seconds that the server asks for.
    """

    scope: Literal["transient", "row", "run"]
    message: str
    status: int | None = None
    code: str = ""
    wait: float | None = None

    @property
    def reached(self) -> bool:
        """Whether a server took the request."""
        return not self.message.startswith(NO_CONNECTION)

    def pause(self, n_tried: int) -> float:
        """Return the seconds until the next try: the server's wait, or longer after each try. A part is random, so that
        requests that failed together are not sent again together."""
        longest = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2**n_tried)
        return max(self.wait or 0.0, longest * random.uniform(0.5, 1.0))


class BrokenReply(ValueError):
    """A body that was cut, is no JSON, or has not the form of a chat completion."""


def read_fault(error: Exception, key: str | None) -> Fault:
    """Return the fault of an error of the ``openai`` package, a timeout or a ``BrokenReply``; ``key`` is removed from
    its message."""
    import openai

    if isinstance(error, openai.APIStatusError):
        body = error.body if isinstance(error.body, Mapping) else {}
        return read_fault_body(error.status_code, body or {"message": error.message}, key, error.response.headers)
    if isinstance(error, (TimeoutError, openai.APITimeoutError)):
        return Fault("transient", "no answer within the timeout")
    if isinstance(error, BrokenReply):
        return Fault("transient", _shorten(str(error), key))
    return Fault("transient", _shorten(f"{NO_CONNECTION} ({error.__cause__ or error})", key))


def read_fault_body(
    status: int, body: Mapping[str, Any], key: str | None, headers: Mapping[str, str] | None = None
) -> Fault:
    """Return the fault of an HTTP status and an error object; ``key`` is removed from its message."""
    inner = body.get("error")
    body = inner if isinstance(inner, Mapping) else body
    code = str(body.get("code") or body.get("type") or "")
    reason = str(body.get("message") or body.get("detail") or inner or code or "no reason given")
    message = _shorten(f"{status}: {reason}", key)
    wait = retry_after(headers or {})
    if code in _EMPTY_ACCOUNT_CODES or (wait or 0) > MAX_WAIT_SECONDS:
        return Fault("run", message, status, code, wait)
    if status in (408, 409, 425, 429) or status >= 500:
        return Fault("transient", message, status, code, wait)
    is_about_row = status in (400, 422) and (code in _ROW_CODES or _ROW_PATTERN.search(reason))
    is_flagged = status == 403 and re.search("flagged|moderation", reason, re.IGNORECASE)
    return Fault("row" if is_about_row or status == 413 or is_flagged else "run", message, status, code)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of ``retry-after-ms`` or of ``retry-after`` (a number, or a date); None without either."""
    for name, units_a_second in (("retry-after-ms", 1000), ("retry-after", 1)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            return max(0.0, float(value) / units_a_second)
        except ValueError:
            pass
        date = email.utils.parsedate_tz(value)
        if date is not None:
            return max(0.0, email.utils.mktime_tz(date) - time.time())
    return None


def without_key(text: str, key: str | None) -> str:
    """Return ``text`` without the key, in case a server repeats it. A key below 8 characters is a placeholder such as
    "none"."""
    return text.replace(key, "[key]") if key and len(key) >= 8 else text


def _shorten(text: str, key: str | None) -> str:
    """Return ``text`` as one line without keys, of bounded length."""
    text = _LOOKS_LIKE_A_KEY.sub("[key]", " ".join(without_key(text, key).split()))
    return text if len(text) <= MAX_MESSAGE_CHARS else f"{text[:MAX_MESSAGE_CHARS]}..."
