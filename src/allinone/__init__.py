"""Qwen All-in-One: one small chat model on an ordinary CPU, many language jobs by prompt alone.

    from allinone import AllInOne

    with AllInOne.load() as ai:
        print(ai.run("sentiment", "今天的实验终于成功了,太棒了!").label)

Importing this package loads no ONNX Runtime, no torch and no web framework; `AllInOne.load` does what it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from allinone.errors import AllInOneError
    from allinone.runtime import AllInOne
    from allinone.types import Result

__version__ = "0.1.0"

__all__ = ["AllInOne", "AllInOneError", "Result", "__version__"]

_HOMES = {"AllInOne": "allinone.runtime", "AllInOneError": "allinone.errors", "Result": "allinone.types"}


def __getattr__(name: str) -> Any:
    """Load the public names on first use (PEP 562), so that `import allinone` stays cheap."""
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
