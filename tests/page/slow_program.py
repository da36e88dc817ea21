"""The program `allinone`, with a model that takes its time: `slow_program.py SECONDS_A_STEP ARGUMENTS…`.

A reply then lasts long enough to be stopped or cut off on any machine, however fast it is. All else is the real thing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

from allinone.backends.onnx.backend import OnnxBackend
from allinone.cli.main import main

_extend = OnnxBackend.extend
_STEP_S = float(sys.argv.pop(1))


def _extend_slowly(self: OnnxBackend, batch: Sequence[Any]) -> Any:
    time.sleep(_STEP_S)
    return _extend(self, batch)


if __name__ == "__main__":
    OnnxBackend.extend = _extend_slowly  # type: ignore[method-assign]
    main()
