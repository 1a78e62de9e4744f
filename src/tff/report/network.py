"""Whether a server can be spoken to."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request

PATIENCE = 5.0  # seconds; a server that is there answers within one


def answers(url: str, patience: float = PATIENCE) -> bool:
    """Whether anything answers at an http(s) address, be it with an error.

    Proxies are taken from the environment. Asked before the client library of a service, which
    tries again for minutes where nothing answers, or for ever.

    Args:
        url: address of the server.
        patience: seconds to wait for a connection, and again for an answer.
    """
    try:
        urllib.request.urlopen(url, timeout=patience).close()
    except urllib.error.HTTPError:  # not found, not allowed: somebody said so
        return True
    except urllib.error.URLError as error:
        # Certificates may be known to the client library by other ways than to Python.
        return isinstance(error.reason, ssl.SSLError)
    except (OSError, ValueError):  # no answer in time; no address
        return False
    return True
