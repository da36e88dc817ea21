"""The size of a step is measured once for a model on a machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from allinone import AllInOne
from allinone.backends.fake import FakeBackend
from allinone.backends.step_size import StepSizeFile
from allinone.engine.budget import SIZES


def test_measured_step_size_is_found_again_for_the_same_model_and_threads_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Another model, or another number of threads, is another measurement."""
    monkeypatch.setenv("ALLINONE_CACHE", str(tmp_path))
    info = FakeBackend().info
    assert StepSizeFile(info).recall() is None
    StepSizeFile(info).remember(1024)
    assert StepSizeFile(info).recall() == 1024
    assert [file.name for file in (tmp_path / "step-sizes").iterdir()] == [StepSizeFile(info).path.name]
    assert StepSizeFile(replace(info, num_threads=info.num_threads + 1)).recall() is None
    assert StepSizeFile(replace(info, model="another")).recall() is None
    with AllInOne.load(backend="fake") as ai:
        ai.run("sentiment", "好")
        assert ai.stats().max_batch_tokens == 1024


@pytest.mark.parametrize("content", [b"", b"many", b"0", b"700", b"\xff\xfe", b"99999999"])
def test_damaged_or_impossible_step_size_is_measured_again(
    content: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A cache is never trusted further than that: only sizes that are measured count."""
    monkeypatch.setenv("ALLINONE_CACHE", str(tmp_path))
    file = StepSizeFile(FakeBackend().info)
    file.remember(2048)
    file.path.write_bytes(content)
    with AllInOne.load(backend="fake") as ai:
        ai.run("sentiment", "好")
        assert ai.stats().max_batch_tokens == SIZES[0]


def test_cache_folder_that_cannot_be_written_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is measured again, that is all."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("ALLINONE_CACHE", str(tmp_path / "file" / "below"))
    StepSizeFile(FakeBackend().info).remember(512)
    assert StepSizeFile(FakeBackend().info).recall() is None
