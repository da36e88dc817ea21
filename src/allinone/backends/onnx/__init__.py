"""The ONNX Runtime backend: its compiled model folder, its graph, its sequences.

ONNX Runtime's official builds send usage data to their makers unless told otherwise (since 1.29 on Linux too).
This product works offline and tells nobody anything, so that is switched off before the library is first imported.
"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
