"""A peer without a model, started as the real ones are. Arguments: what it does instead of answering labels."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.peers.serving import Peer, Request, serve


class FakePeer(Peer):
    """Answers at once; "crash", "hang" and "fail" when asked for a label; "noisy" libraries print on stdout."""

    distributions = ("numpy",)

    def load(self, model: str, threads: int, second_model: str | None) -> None:
        """Print as libraries do, or break."""
        if "noisy" in sys.argv:
            print("a library says hello")
            os.write(1, b"and so does its C code\n")
        if "broken" in sys.argv:
            raise RuntimeError("the model is of another kind")

    def label(self, request: Request, token_ids: Sequence[int]) -> None:
        """Do what the arguments say."""
        if "crash" in sys.argv:
            os.kill(os.getpid(), signal.SIGSEGV)
        if "hang" in sys.argv:
            time.sleep(60)
        if "fail" in sys.argv:
            raise ValueError("no such label")

    def labels(self, requests: Sequence[Request], token_ids: Sequence[int]) -> None:
        """Take a millisecond."""
        time.sleep(0.001)

    def next_tokens(self, requests: Sequence[Request]) -> list[int]:
        """A number that depends on all ids."""
        return [sum(one["prefix"]) + sum(one["ids"]) for one in requests]


if __name__ == "__main__":
    serve(FakePeer())
