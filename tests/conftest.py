"""What every test may count on: no network beyond this machine, no model that is not made here, fixtures for both."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

from allinone.backends.fake import ByteTokenizer, FakeBackend
from allinone.models.random_weights import RandomWeights
from allinone.models.weights import ModelConfig

_LOOPBACK = ("127.", "::1", "localhost")
_EXTRAS = {
    "real_model": ("transformers", ("torch", "transformers")),
    "llamacpp": ("llamacpp", ("llama_cpp",)),
    "training": ("train", ("torch", "tqdm", "pypinyin", "vaderSentiment", "matplotlib")),
}
"""Marker -> the extra that its tests need, and the packages that tell whether it is installed."""
_SETTINGS = ("MODEL", "TASKS", "THREADS", "LANG", "DEBUG", "API_KEY", "STORE")
_CHROMIUM = ("chromium", "chromium-browser")


def pytest_configure(config: pytest.Config) -> None:
    """Folders of the run's own: nothing that lies on this machine counts, and nothing is left on it.

    The workers of a parallel run inherit them, so the bundled model is prepared once.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job: programs under test inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(config, "workerinput"):
        return
    for name in _SETTINGS:
        os.environ.pop(f"ALLINONE_{name}", None)
    folder = tempfile.mkdtemp(prefix="allinone-tests-")
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    os.environ["ALLINONE_HOME"] = os.path.join(folder, "home")
    os.environ["ALLINONE_CACHE"] = os.path.join(folder, "cache")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs an extra that is not installed, and say so."""
    for marker, (extra, packages) in _EXTRAS.items():
        missing = [name for name in packages if importlib.util.find_spec(name) is None]
        if missing:
            skip = pytest.mark.skip(reason=f"needs {', '.join(missing)}: pip install 'qwen-allinone[{extra}]'")
            for item in items:
                if item.get_closest_marker(marker):
                    item.add_marker(skip)
    if _find_chromium() is None and os.environ.get("CI") != "true":
        skip = pytest.mark.skip(reason="needs chromium (Debian: sudo apt install chromium)")
        for item in items:
            if item.get_closest_marker("browser"):
                item.add_marker(skip)


def _find_chromium() -> str | None:
    return next((path for name in _CHROMIUM if (path := shutil.which(name))), None)


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """The browser for tests of the page; a machine with CI=true must have it."""
    path = _find_chromium()
    assert path is not None, f"none of {', '.join(_CHROMIUM)} is on the PATH"
    return path


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that needs the network is wrong on the machine of somebody who has none."""
    connect = socket.socket.connect

    def connect_nearby(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not str(address[0]).startswith(_LOOPBACK):
            raise AssertionError(f"A test wants to connect to {address}: tests have no network.")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_nearby)


@pytest.fixture
def byte_tokenizer() -> ByteTokenizer:
    """256 bytes and three control tokens."""
    return ByteTokenizer()


@pytest.fixture
def fake_backend() -> Iterator[FakeBackend]:
    """A backend without weights; whoever used it must have given every sequence back."""
    backend = FakeBackend()
    yield backend
    assert backend.num_sequences() == 0, "sequences were leaked"


@pytest.fixture(scope="session")
def tiny_weights() -> RandomWeights:
    """A two-layer Qwen2 with random weights and the vocabulary of `ByteTokenizer`."""
    return RandomWeights(tiny_config())


def tiny_config(**changes: Any) -> ModelConfig:
    """Numbers of a decoder small enough to run thousands of times in a test."""
    numbers: dict[str, Any] = {
        "architecture": "qwen2",
        "vocab_size": 272,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_layers": 2,
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 16,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e4,
        "max_context_tokens": 512,
        "tie_word_embeddings": True,
    }
    return ModelConfig(**(numbers | changes))
