"""Trying a draft: beside the task that is served, and on its cases.

A draft is a prompt file that no library has: it runs on the same engine, under its own version, and nobody else meets
it. Its prefix lies in the prefix cache like any other, and is evicted like any other when it is not used. Above:
`prompts_api.py`. Below: `waiting.py` (answers without threads) and the runtime.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from allinone.errors import AllInOneError, InvalidInput
from allinone.prompts.cases import Case, judge_case
from allinone.prompts.prompt_file import PromptFile
from allinone.runtime import AllInOne
from allinone.server.answers import answer_of, failed_item
from allinone.server.context import ServerContext
from allinone.server.keys import Access
from allinone.server.waiting import outcome_of, wait
from allinone.types import Result

WINDOW = 16
"""Inputs of one trial that are with the engine at the same time."""
_SHORT_CHARS = 2_000
_TAKEN_NAMES = frozenset(inspect.signature(AllInOne.start).parameters) - {"text"}
"""Names that mean something else to `AllInOne.start`."""


class Trial:
    """Answers of prompts, served or not, to one key."""

    def __init__(self, context: ServerContext, access: Access) -> None:
        self._context, self._access = context, access
        self._gate = asyncio.Semaphore(WINDOW)

    async def compare(
        self, old: PromptFile | AllInOneError, draft: PromptFile, texts: Sequence[str], variables: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Both on the same texts, as `Comparison` describes it.

        Args:
            old: what is served; why there is nothing, where there is not.
            draft: what may be.
            texts: inputs for both.
            variables: further ones; each prompt gets those that it declares.

        Raises:
            InvalidInput: a variable that neither declares.
        """
        known = {*draft.inputs, *(old.inputs if isinstance(old, PromptFile) else ())}
        for name in variables:
            if name not in known:
                raise InvalidInput(f"Neither version has a variable {name[:50]!r}.")
        inputs = [{**variables, "text": text} for text in texts]
        before, after = await asyncio.gather(self._run_all(old, inputs), self._run_all(draft, inputs))
        rows = [
            {"text": text, "old": _shown(one), "new": _shown(other), "is_changed": _answer(one) != _answer(other)}
            for text, one, other in zip(texts, before, after, strict=True)
        ]
        return {"rows": rows, "num_changed": sum(row["is_changed"] is True for row in rows)}

    async def run_cases(self, draft: PromptFile, cases: Sequence[Case]) -> dict[str, Any]:
        """The cases of a draft, as `CasesReport` describes it."""
        outcomes = await self._run_all(draft, [case.vars for case in cases])
        judged = [judge_case(case, outcome) for case, outcome in zip(cases, outcomes, strict=True)]
        return {
            "version": draft.version,
            "cases": [outcome.as_json() for outcome in judged],
            "num_passed": sum(outcome.is_passed for outcome in judged),
        }

    async def _run_all(
        self, prompt: PromptFile | AllInOneError, inputs: Sequence[Mapping[str, Any]]
    ) -> list[Result | AllInOneError]:
        if isinstance(prompt, AllInOneError):
            return [prompt] * len(inputs)
        own = [{name: value for name, value in each.items() if name in prompt.inputs} for each in inputs]
        return await asyncio.gather(*(self._run(prompt, variables) for variables in own))

    async def _run(self, prompt: PromptFile, variables: Mapping[str, Any]) -> Result | AllInOneError:
        """One answer, counted, or why there is none; a full queue is waited out, for it moves."""
        async with self._gate:
            return await outcome_of(lambda: self._start(prompt, variables))

    async def _start(self, prompt: PromptFile, variables: Mapping[str, Any]) -> Result:
        taken = sorted(_TAKEN_NAMES & variables.keys())
        if taken:
            raise InvalidInput(f"The variable {taken[0]!r} cannot be given here.", hint="give it another name")
        begin = partial(self._context.ai.start, prompt, client=self._access.owner, priority="batch", **variables)
        is_short = len(str(variables.get("text"))) <= _SHORT_CHARS
        result = await wait(begin() if is_short else await asyncio.to_thread(begin))
        if not result.cached:
            self._context.limits.add_tokens(self._access, result.usage)
        self._context.metrics.count_result(result)
        return result


def _shown(outcome: Result | AllInOneError) -> dict[str, Any]:
    if isinstance(outcome, AllInOneError):
        return failed_item(outcome)
    answer = answer_of(outcome, id="")
    del answer["id"]  # nothing that feedback could refer to
    return answer


def _answer(outcome: Result | AllInOneError) -> object:
    """What counts as the answer: not how sure the model is, nor how long it took."""
    if isinstance(outcome, AllInOneError):
        return (outcome.code, outcome.message)
    return (outcome.kind, outcome.label, outcome.text, outcome.data)
