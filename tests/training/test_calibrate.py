"""Temperatures in a GGUF: written, written again, and nothing else touched."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import gguf
import pytest

from allinone.models.files import open_model

ROOT = Path(__file__).parents[2]
BUNDLED = next((ROOT / "src" / "allinone" / "models" / "bundled").glob("*.gguf"))
pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason="the recipe needs Python 3.11 (tomllib)")


def test_written_temperatures_change_nothing_else_in_the_file(tmp_path: Path) -> None:
    """The product reads them; writing again replaces them; every other value and every tensor keeps its bytes."""
    from training.calibrate import write_temperatures

    file = tmp_path / "model.gguf"
    shutil.copyfile(BUNDLED, file)
    write_temperatures(file, {"sentiment": 1.5, "intent": 2.0})
    assert open_model(file).calibration.temperatures == {"sentiment": 1.5, "intent": 2.0}
    write_temperatures(file, {"sentiment": 1.25, "emotion": 0.75})
    assert open_model(file).calibration.temperatures == {"sentiment": 1.25, "emotion": 0.75}
    assert list(tmp_path.iterdir()) == [file]

    before, after = gguf.GGUFReader(BUNDLED), gguf.GGUFReader(file)
    ours = {name for name in after.fields if not name.startswith(("GGUF.", "allinone.temperature."))}
    assert ours == {name for name in before.fields if not name.startswith(("GGUF.", "allinone.temperature."))}
    assert all(before.fields[name].contents() == after.fields[name].contents() for name in ours)
    for old, new in zip(before.tensors, after.tensors, strict=True):
        assert (old.name, old.tensor_type) == (new.name, new.tensor_type)
        assert old.data.tobytes() == new.data.tobytes()
