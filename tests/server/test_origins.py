"""Pages of other sites: which names and origins are ours."""

from __future__ import annotations

import pytest

from allinone.errors import ConfigError, NotAllowed
from allinone.server.origins import LOOPBACK_NAMES, check_host, check_origin, is_loopback


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True), ("127.1.2.3", True), ("localhost", True), ("::1", True),
        ("0.0.0.0", False), ("::", False), ("192.0.2.1", False), ("2001:db8::1", False),
    ],
)  # fmt: skip
def test_loopback_is_known_by_address(host: str, expected: bool) -> None:
    """Every address that another machine could reach needs a key."""
    assert is_loopback(host) is expected


@pytest.mark.parametrize("host", ["no such host", "host..invalid", "x" * 300])
def test_a_host_without_an_address_is_refused(host: str) -> None:
    """Said before a model is loaded."""
    with pytest.raises(ConfigError, match="has no address"):
        is_loopback(host)


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8000", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:8000", "[::1]"]
)
def test_our_own_names_are_taken(host: str) -> None:
    """With a port, without one, in any case."""
    check_host({b"host": host.encode()}, LOOPBACK_NAMES)


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "localhost:1:2", "[",
     "[::2]:8000", "::1", "localhost@evil.example"],
)  # fmt: skip
def test_other_names_are_refused(host: str) -> None:
    """A name that an attacker's DNS points at this machine is not ours."""
    if host == "::1":  # without brackets it is still the address itself
        check_host({b"host": b"::1"}, LOOPBACK_NAMES)
        return
    with pytest.raises(NotAllowed, match="does not answer to the name"):
        check_host({b"host": host.encode()}, LOOPBACK_NAMES)
    check_host({b"host": host.encode()}, None)


@pytest.mark.parametrize(
    "headers",
    [
        {b"origin": b"http://evil.example"},
        {b"origin": b"null"},
        {b"origin": b""},
        {b"origin": b"http://localhost:9999"},
        {b"origin": b"http://["},
        {b"origin": b"http://localhost:8000.evil.example"},
        {b"origin": b"http://evil.example/localhost:8000"},
        {b"sec-fetch-site": b"cross-site"},
        {b"sec-fetch-site": b"same-site"},
        {b"sec-fetch-site": b"cross-site", b"origin": b"http://localhost:8000"},
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_pages_of_others_may_change_nothing(method: str, headers: dict[bytes, bytes]) -> None:
    """A form on any page could otherwise use the model, or delete what was said."""
    with pytest.raises(NotAllowed):
        check_origin(method, {b"host": b"localhost:8000", **headers})


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {b"origin": b"http://localhost:8000"},
        {b"origin": b"https://LOCALHOST:8000"},
        {b"origin": b"http://localhost:8000", b"sec-fetch-site": b"same-origin"},
        {b"sec-fetch-site": b"none"},
    ],
)
def test_programs_and_our_own_page_are_let_in(headers: dict[bytes, bytes]) -> None:
    """Programs send no Origin; our page sends that of the address it came from."""
    check_origin("POST", {b"host": b"localhost:8000", **headers})


def test_reading_needs_no_origin() -> None:
    """Without CORS a page cannot read the answer, and a link from elsewhere must open our page."""
    check_origin(
        "GET", {b"host": b"localhost:8000", b"origin": b"http://evil.example", b"sec-fetch-site": b"cross-site"}
    )
