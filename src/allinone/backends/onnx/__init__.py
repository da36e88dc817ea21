"""The default backend. ONNX Runtime's own builds send usage data to their makers unless told otherwise (since 1.29 on
Linux and macOS too): this product runs offline and tells nobody anything, so it is told before it is first imported.
"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
