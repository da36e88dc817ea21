"""What can go wrong between here and a model hub, as errors of ours that say what to do about it.

Knows no files and no plan; `hub_plan.py` and `hub.py` wrap their calls of `huggingface_hub` in `hub_errors`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, NoReturn
from urllib.parse import urlsplit

from allinone.errors import ConfigError, UnknownModel, WeightsMismatch, WeightsNotFound, did_you_mean
from allinone.models.catalog import CATALOG

_DISK_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO)
_HINTS = {
    401: "HF_TOKEN is missing or wrong",
    403: "HF_TOKEN has no access to this model",
    404: "the repository changed meanwhile, or the mirror lacks the file",
    429: "too many requests: wait a few minutes",
}


def hub_endpoint() -> str:
    """The hub's address: HF_ENDPOINT as it is now, not as it was when `huggingface_hub` was imported.

    Raises:
        ConfigError: it is not an http address.
    """
    from huggingface_hub import constants

    endpoint = (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
    try:
        parts = urlsplit(endpoint)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"HF_ENDPOINT is {endpoint!r}; an http:// or https:// address is needed")
    return endpoint


def require_online(hub_id: str) -> None:
    """Refuse where the environment forbids the network.

    Raises:
        WeightsNotFound: HF_HUB_OFFLINE is set.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise WeightsNotFound(
            f"{hub_id} cannot be fetched: HF_HUB_OFFLINE is set",
            hint="unset HF_HUB_OFFLINE, or give the path of a model folder copied from elsewhere",
        )


@contextmanager
def hub_errors(hub_id: str, endpoint: str, file: str | None = None) -> Generator[None]:
    """Turn errors of the network and of the hub into ours; errors of the disk pass.

    Raises:
        UnknownModel: the hub has no such model.
        WeightsNotFound: gated, refused or unreachable; `retryable` if the connection broke.
        WeightsMismatch: a file is shorter than announced.
    """
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise WeightsNotFound(
            f"{hub_id} is gated: its owner grants access one by one",
            hint=f"accept the conditions at {endpoint}/{hub_id}, then set HF_TOKEN",
        ) from error
    except errors.RepositoryNotFoundError as error:
        known = did_you_mean(hub_id, [entry.hub_id for entry in CATALOG])
        raise UnknownModel(
            f"{endpoint} has no model {hub_id!r}, or it is private. {known}", hint="private models need HF_TOKEN"
        ) from error
    except errors.HfHubHTTPError as error:
        _raise_for_status(error, hub_id, endpoint, file)
    except ValueError as error:  # an answer that is not JSON; with older releases of the library also an OSError
        raise WeightsNotFound(
            f"{endpoint} does not answer like a hub: {error}",
            hint="is HF_ENDPOINT right, and no login page in between?",
        ) from error
    except (OSError, errors.HTTPError) as error:  # pyright: ignore[reportPrivateImportUsage]
        if isinstance(error, OSError) and error.errno in _DISK_ERRNOS:
            raise
        interrupted = WeightsNotFound(
            f"{file or hub_id} could not be fetched from {endpoint}: {error or type(error).__name__}",
            hint="check the network; HF_ENDPOINT names a mirror; a model folder copied here works by its path",
        )
        interrupted.retryable = True
        raise interrupted from error


def _raise_for_status(error: Any, hub_id: str, endpoint: str, file: str | None) -> NoReturn:
    status = error.response.status_code
    if status == 416:
        raise WeightsMismatch(
            f"{hub_id}: {file} is shorter than the hub announced", hint="pull it again; the mirror may be damaged"
        ) from error
    raise WeightsNotFound(
        f"{endpoint} answered {status} for {file or hub_id}",
        hint=_HINTS.get(status, "the hub has a problem: try again later, or name a mirror with HF_ENDPOINT"),
    ) from error
