"""One file per peer; each runs as a process of its own, in its own environment, and knows only `serving.py`."""
