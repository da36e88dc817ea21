"""Processes that use one store at once, or die while they do; started by `test_processes.py`.

    python processes.py add|kill URL COUNT

Prints a JSON object of what happened. It imports everything once and forks: fifty processes in a few seconds.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from datetime import date
from typing import Any, TextIO

from allinone.errors import VersionConflict
from allinone.store.database import Store

OWNER = "ann"
DAY = date(2026, 2, 28)


def fork(work: Callable[[], None]) -> int:
    """Run `work` in a process of its own; its pid."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        finally:
            os._exit(code)
    return pid


def add(store: Store, id: str, number: int, text: str) -> None:
    """Add one turn."""
    store.conversations.add_turn(
        OWNER,
        id,
        expected_num_turns=number,
        text=text,
        reply=text * 20,
        mood=None,
        finish_reason="stop",
        answer_id="ans_1",
        task_version="v",
        state=text.encode() * 100,
    )


def add_at_once(url: str, num_processes: int) -> dict[str, Any]:
    """Many processes open a new store at once, then all add their turns to the same conversation."""
    begun_read, begun_write = os.pipe()
    with_id_read, with_id_write = os.pipe()

    def work(name: int) -> None:
        with Store.open(url) as store:
            os.write(begun_write, b".")
            id = os.read(with_id_read, 100).decode().strip()
            for i in range(10):
                is_added = False
                while not is_added:
                    try:
                        add(store, id, store.conversations.get(OWNER, id).num_turns, f"{name}:{i}")
                        is_added = True
                    except VersionConflict:
                        continue
                store.usage.add(OWNER, DAY, 3)

    pids = [fork(lambda name=name: work(name)) for name in range(num_processes)]
    os.close(begun_write)
    num_begun = 0
    while got := os.read(begun_read, num_processes - num_begun):  # ends early when all have died
        num_begun += len(got)
        if num_begun == num_processes:
            break
    with Store.open(url) as store:
        id = store.conversations.create(OWNER, language="zh").id
        os.write(with_id_write, f"{id:100}".encode() * num_processes)
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        turns = store.conversations.turns(OWNER, id)
        return {
            "codes": codes,
            "texts": [turn.text for turn in turns],
            "numbers": [turn.number for turn in turns],
            "num_turns": store.conversations.get(OWNER, id).num_turns,
            "num_tokens": store.usage.get(OWNER, DAY),
        }


def start(work: Callable[[int], None]) -> tuple[int, TextIO]:
    """Run `work` in a process of its own: its pid, and what it writes to the descriptor that it gets."""
    acks_read, acks_write = os.pipe()
    pid = fork(lambda: work(acks_write))
    os.close(acks_write)
    return pid, os.fdopen(acks_read)


def end(pid: int, acks: TextIO) -> None:
    """Wait for a process that ends, or was killed."""
    acks.close()
    os.waitpid(pid, 0)


def begin(url: str, acks: int) -> None:
    """Begin the conversation."""
    with Store.open(url) as store:
        os.write(acks, f"{store.conversations.create(OWNER, language='zh').id}\n".encode())


def write(url: str, id: str, round: int, acks: int) -> None:
    """Add turns for ever, and acknowledge each."""
    with Store.open(url) as store:
        number = store.conversations.get(OWNER, id).num_turns
        for i in itertools.count():
            add(store, id, number + i, f"{round}:{i}")
            os.write(acks, f"{round}:{i}\n".encode())


def kill_writers(url: str, num_kills: int) -> dict[str, Any]:
    """Writers are killed, one after the other, at any moment: while opening, between turns, within one."""
    chance = random.Random(20260228)
    acknowledged: list[str] = []
    pid, acks = start(lambda acks: begin(url, acks))
    id = acks.readline().strip()
    end(pid, acks)
    for round in range(num_kills):
        pid, acks = start(lambda acks, round=round: write(url, id, round, acks))
        lines = [acks.readline() for _ in range(chance.randrange(8))]
        time.sleep(chance.random() * 0.006)
        os.kill(pid, signal.SIGKILL)
        lines += acks.readlines()  # what it said before it died
        end(pid, acks)
        acknowledged += [line.strip() for line in lines]
    with Store.open(url) as store:
        turns = store.conversations.turns(OWNER, id)
        found = store.conversations.get(OWNER, id)
        return {
            "acknowledged": acknowledged,
            "texts": [turn.text for turn in turns],
            "numbers": [turn.number for turn in turns],
            "num_turns": found.num_turns,
            "state": (found.state or b"").decode(),
        }


if __name__ == "__main__":
    run = {"add": add_at_once, "kill": kill_writers}[sys.argv[1]]
    print(json.dumps(run(sys.argv[2], int(sys.argv[3]))))
