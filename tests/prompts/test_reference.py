"""docs/tasks.md says what the task files say."""

from __future__ import annotations

import os
from pathlib import Path

from allinone.prompts.library import PromptLibrary
from allinone.prompts.reference import tasks_page

PAGE = Path(__file__).parents[2] / "docs" / "tasks.md"


def test_tasks_page_is_up_to_date():
    """UPDATE_SNAPSHOTS=1 writes it again after a task was changed."""
    page = tasks_page(PromptLibrary.load().prompts())
    if os.environ.get("UPDATE_SNAPSHOTS") == "1":
        PAGE.write_text(page, encoding="utf-8", newline="\n")
    assert PAGE.read_text(encoding="utf-8") == page
