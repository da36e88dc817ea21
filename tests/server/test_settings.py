"""Limits given by hand: taken, or refused by name."""

from __future__ import annotations

import pytest

from allinone.errors import ConfigError
from allinone.server.settings import LIMITS, ServerSettings


def test_limits_are_changed_by_name() -> None:
    """One option reaches every limit, and the type stays that of the default."""
    settings = ServerSettings().with_limits(["max_body_bytes=4_194_304", "send_timeout_s=2.5", "keep_alive_s=3"])
    assert (settings.max_body_bytes, settings.send_timeout_s, settings.keep_alive_s) == (4_194_304, 2.5, 3.0)
    assert settings.max_streams == ServerSettings().max_streams


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("max_body_bytes", "is not a limit"),
        ("max_body=1", "Did you mean 'max_body_bytes'"),
        ("max_body_bytes=1.5", "a whole number above 0"),
        ("send_timeout_s=nan", "a number above 0"),
        ("send_timeout_s=inf", "a number above 0"),
        ("max_streams=0", "a whole number above 0"),
        ("max_streams=-1", "a whole number above 0"),
        ("max_streams=", "a whole number above 0"),
        ("worker=3", "Unknown limit"),
        ("log_texts=1", "Unknown limit"),
    ],
)
def test_impossible_limits_are_refused(assignment: str, says: str) -> None:
    """A mistyped limit that is ignored would be no limit."""
    with pytest.raises(ConfigError, match=says):
        ServerSettings().with_limits([assignment])


def test_switches_are_no_limits() -> None:
    """What opens the server up has an option of its own, and is never reached by a number."""
    assert not {"edit_prompts", "log_texts", "allowed_hosts", "worker", "num_workers", "metrics_dir"} & set(LIMITS)
    assert {"max_body_bytes", "max_streams", "drain_timeout_s"} <= set(LIMITS)
