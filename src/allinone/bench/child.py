"""What a child process of the benchmark said when it failed, as one error of ours."""

from __future__ import annotations

from allinone.errors import RunError


def describe_failure(what: str, code: int, stderr: str) -> RunError:
    """The error of a child that gave no answer.

    Args:
        what: the child was for: "a cold start".
        code: its exit code.
        stderr: all that it said; its line "error: …" is taken, else its last one.
    """
    lines = [line for line in stderr.splitlines() if line.strip()] or ["it said nothing"]
    reason = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), lines[-1].strip())
    return RunError(
        f"The process for {what} failed (exit code {code}): {reason}",
        hint="`allinone doctor` examines this installation",
    )
