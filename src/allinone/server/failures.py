"""What the log says of a failure: where it happened, and never what it happened with unless that is asked for.

The message of an exception may quote what a user sent. Frames of a traceback hold source lines only. Above: `guard.py`
and `problems.py`.
"""

from __future__ import annotations

import logging
import traceback

from allinone.errors import AllInOneError, StoreError

_log = logging.getLogger("allinone.server")


def log_failure(error: Exception, *, request_id: str, with_message: bool) -> None:
    """Log a failure of the server.

    Args:
        error: what was raised. The messages of the store name files and databases, never their content: they are shown.
        request_id: of the request that met it.
        with_message: say everything (`--log-texts`).
    """
    if with_message:
        _log.error("%s failed: %s", request_id, "".join(traceback.format_exception(error)))
        return
    name = f"{type(error).__name__} ({error.code})" if isinstance(error, AllInOneError) else type(error).__name__
    message = f": {error.message}" if isinstance(error, StoreError) else ""
    _log.error("%s failed: %s%s\n%s", request_id, name, message, "".join(traceback.format_tb(error.__traceback__)))
