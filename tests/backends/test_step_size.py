"""The size of a step is measured once for a model on a machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from allinone import AllInOne
from allinone.backends.fake import FakeBackend
from allinone.backends.step_size import recall_step_tokens, remember_step_tokens


def test_measured_step_size_is_found_again_for_the_same_model_and_threads_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Another model, or another number of threads, is another measurement."""
    monkeypatch.setenv("ALLINONE_CACHE", str(tmp_path))
    info = FakeBackend().info
    assert recall_step_tokens(info) is None
    remember_step_tokens(info, 1024)
    assert recall_step_tokens(info) == 1024
    assert recall_step_tokens(replace(info, num_threads=info.num_threads + 1)) is None
    assert recall_step_tokens(replace(info, model="another")) is None
    with AllInOne.load(backend="fake") as ai:
        ai.run("sentiment", "好")
        assert ai.stats().max_batch_tokens == 1024


@pytest.mark.parametrize("content", [b"", b"many", b"0", b"\xff\xfe", b"99999999"])
def test_damaged_or_impossible_step_size_is_measured_again(
    content: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A cache is never trusted further than that."""
    monkeypatch.setenv("ALLINONE_CACHE", str(tmp_path))
    info = FakeBackend().info
    remember_step_tokens(info, 1024)
    (file,) = (tmp_path / "step-sizes").iterdir()
    file.write_bytes(content)
    assert recall_step_tokens(info) is None


def test_cache_folder_that_cannot_be_written_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is measured again, that is all."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("ALLINONE_CACHE", str(tmp_path / "file" / "below"))
    remember_step_tokens(FakeBackend().info, 512)
    assert recall_step_tokens(FakeBackend().info) is None
