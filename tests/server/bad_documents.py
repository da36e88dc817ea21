"""Bodies that no client should send: too deep, too many, not JSON, not text. For `test_raw_sockets.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

MILLION = 1_000_000
TASK, CHAT, COMPLETE, EMBED = "/v1/tasks/sentiment", "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
MESSAGE = b'{"model":"allinone","max_tokens":1,"messages":[{"role":"user","content":"x"}]'


def many(entry: bytes, number: int = MILLION) -> bytes:
    """A JSON array."""
    return b"[" + b",".join([entry] * number) + b"]"


def members(number: int = 250_000) -> bytes:
    """Members of a JSON object, each with a name of its own."""
    return b",".join(b'"k%d":1' % place for place in range(number))


Document: TypeAlias = Callable[[], tuple[str, bytes]]
"""Makes a path and a body for it: some are large, and are made when they are needed."""

DOCUMENTS: dict[str, Document] = {
    "100,000 brackets": lambda: (TASK, b"[" * 100_000),
    "100,000 brackets and back": lambda: (TASK, b"[" * 100_000 + b"]" * 100_000),
    "100,000 objects": lambda: (TASK, b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "100,000 brackets in a field": lambda: (CHAT, MESSAGE + b',"metadata":{"a":' + b"[" * 100_000 + b"]" * 100_000),
    "100,000 brackets in UTF-16": lambda: (TASK, ('{"∀":' + "[" * 100_000 + "]" * 100_000 + "}").encode("utf-16-le")),
    "100,000 brackets in UTF-32": lambda: (TASK, ('{"∀":' + "[" * 100_000 + "]" * 100_000 + "}").encode("utf-32-le")),
    "an array of a million": lambda: (TASK, many(b"1")),
    "a million inputs": lambda: (TASK, b'{"inputs":' + many(b"{}") + b"}"),
    "a million wrong inputs": lambda: (TASK, b'{"inputs":' + many(b"0") + b"}"),
    "a million labels": lambda: (TASK, b'{"text":"x","labels":' + many(b"0") + b"}"),
    "a million numbers for a variable": lambda: (TASK, b'{"text":"x","variables":{"a":' + many(b"0") + b"}}"),
    "unknown members": lambda: (TASK, b'{"text":"x",' + members() + b"}"),
    "unknown variables": lambda: (TASK, b'{"text":"x","variables":{' + members() + b"}}"),
    "a million messages": lambda: (CHAT, b'{"model":"allinone","messages":' + many(b"{}") + b"}"),
    "a million wrong parts": lambda: (
        CHAT,
        b'{"model":"allinone","messages":[{"role":"user","content":' + many(b"0") + b"}]}",
    ),
    "a million wrong tools": lambda: (CHAT, MESSAGE + b',"tool_choice":"none","tools":' + many(b"0") + b"}"),
    "a million stop strings": lambda: (CHAT, MESSAGE + b',"stop":' + many(b"0") + b"}"),
    "unknown fields": lambda: (CHAT, MESSAGE + b"," + members() + b"}"),
    "wrong biases": lambda: (CHAT, MESSAGE + b',"logit_bias":{' + members() + b"}}"),
    "a million token ids": lambda: (COMPLETE, b'{"model":"allinone","prompt":' + many(b"1") + b"}"),
    "a million wrong token ids": lambda: (
        COMPLETE,
        b'{"model":"allinone","prompt":[1,' + many(b'"x"', MILLION // 2)[1:] + b"}",
    ),
    "a million texts": lambda: (EMBED, b'{"model":"allinone","input":' + many(b'""') + b"}"),
    "a million wrong texts": lambda: (EMBED, b'{"model":"allinone","input":' + many(b"{}") + b"}"),
    "invalid UTF-8": lambda: (TASK, b'{"text":"\xff\xfe\x80"}'),
    "overlong UTF-8": lambda: (TASK, b'{"text":"\xc0\xaf"}'),
    "surrogates in UTF-8": lambda: (TASK, b'{"text":"\xed\xa0\x80"}'),
    "a lone surrogate": lambda: (TASK, b'{"text":"\\ud800"}'),
    "U+0000": lambda: (TASK, b'{"text":"a\\u0000b"}'),
    "no end": lambda: (TASK, b'{"text":"'),
    "no JSON": lambda: (TASK, bytes(range(256)) * 100),
    "nothing": lambda: (TASK, b""),
    "not a number": lambda: (TASK, b'{"text":"x","deadline_s":NaN}'),
    "infinite": lambda: (TASK, b'{"text":"x","deadline_s":1e999}'),
    "a number of a million digits": lambda: (TASK, b'{"text":"x","deadline_s":' + b"9" * MILLION + b"}"),
    "a very long text": lambda: (TASK, b'{"text":"' + b"a" * 4_000_000 + b'"}'),
}
