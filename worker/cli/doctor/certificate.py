"""How long a server's certificate is valid, and when that is worth a warning."""

from __future__ import annotations

import ssl
import time

_SOON_DAYS = 14
_DAY_SECONDS = 86_400


def days_if_soon(until: str) -> float | None:
    """Return in how many days a certificate expires, if that is soon; else None.

    Args:
        until: its end, as OpenSSL writes it; empty: unknown.
    """
    if not until:
        return None
    days = (ssl.cert_time_to_seconds(until) - time.time()) / _DAY_SECONDS
    return days if days < _SOON_DAYS else None
