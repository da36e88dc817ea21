"""Pages of other sites are kept out: which Host and Origin a request may name.

A browser sends requests to this machine on behalf of any page that it shows. Two checks stop that: the name in Host
must be one of ours (DNS rebinding), and a request that changes something must come from our own page where no key
protects it. CORS stays closed: no header ever allows another origin to read an answer. Knows no endpoint; above:
`guard.py`.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

from allinone.errors import ConfigError, NotAllowed

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_READING = frozenset({"GET", "HEAD", "OPTIONS"})


def is_loopback(host: str) -> bool:
    """Whether every address of a host to listen on can be reached from this machine only.

    Raises:
        ConfigError: the host has no address.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"The host {host!r} has no address here: {error}.", hint="give --host an address") from error
    return all(ipaddress.ip_address(str(address[4][0]).split("%")[0]).is_loopback for address in found)


def check_host(headers: Mapping[bytes, bytes], allowed: frozenset[str] | None) -> None:
    """Refuse a request that was sent to another name than ours.

    Args:
        headers: of the request.
        allowed: names without port; None takes any.

    Raises:
        NotAllowed: another name, or none.
    """
    if allowed is None:
        return
    name = _name_of(headers.get(b"host", b"").decode("latin-1"))
    if name not in allowed:
        raise NotAllowed(
            f"This server does not answer to the name {name[:100]!r}.",
            hint="behind a proxy: allinone serve --allow-host NAME",
        )


def check_origin(method: str, headers: Mapping[bytes, bytes]) -> None:
    """Refuse a request that changes something and was sent by a page of another site.

    Raises:
        NotAllowed: its Origin is not the address that it was sent to.
    """
    if method in _READING:
        return
    site = headers.get(b"sec-fetch-site", b"none")
    origin = headers.get(b"origin")
    if site not in (b"none", b"same-origin"):
        raise NotAllowed("A page of another site may not send requests here.")
    if origin is None:
        return
    if _place_of(_decode(origin)) != _decode(headers.get(b"host", b"")).lower():
        raise NotAllowed("A page of another site may not send requests here.")


def _name_of(host: str) -> str:
    """`localhost:8000` → `localhost`, `[::1]:8000` → `::1`; what cannot be taken apart stays as it is."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.rpartition(":")[0].lower() if host.count(":") == 1 else host.lower()


def _place_of(origin: str) -> str:
    """Host and port of an origin; empty for `null` and whatever else is none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _decode(value: bytes) -> str:
    return value.decode("latin-1")
