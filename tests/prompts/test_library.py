"""The library: layers, hot reload, and what happens to files that are wrong."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import pytest

from allinone.errors import ConfigError, PromptError, UnknownTask
from allinone.prompts.library import LibraryEvent, PromptLibrary

from .texts import LABEL_PROMPT, TEXT_PROMPT

BROKEN = "---\ndescription: half"
BUILTIN_NAMES = {
    *("sentiment", "emotion", "chat", "empathy", "summarize", "typo", "grammar"),
    *("intent", "keywords", "polish", "rewrite", "translate", "title"),
}


class Recorder(list[LibraryEvent]):
    """Events as (kind, name), emptied by each look."""

    def look(self) -> list[tuple[str, str]]:
        """What came since the last look."""
        seen = [(event.kind, event.name) for event in self]
        self.clear()
        return seen


@pytest.fixture
def events() -> Recorder:
    return Recorder()


def open_library(directory: Path, events: Recorder) -> PromptLibrary:
    return PromptLibrary.load([directory], on_event=events.append)


def test_load_has_the_built_in_tasks():
    """The thirteen tasks of the contract are there and right."""
    library = PromptLibrary.load()
    assert {name.partition(".")[0] for name in library.names()} == BUILTIN_NAMES
    assert library.problems() == ()
    assert [prompt.full_name for prompt in library.prompts()] == list(library.names())


def test_get_unknown_task_suggests():
    """The example of the style guide."""
    with pytest.raises(UnknownTask, match="Did you mean 'sentiment'"):
        PromptLibrary.load().get("sentimnt")


def test_load_later_layers_win_by_full_name(tmp_path: Path):
    """A user's file replaces the built-in one of its name, and only that."""
    for folder, description in (("a", "first"), ("b", "second")):
        (tmp_path / folder).mkdir()
        text = LABEL_PROMPT.replace("is it urgent?", description)
        (tmp_path / folder / "sentiment.prompt").write_text(text, encoding="utf-8")
    library = PromptLibrary.load([tmp_path / "a", tmp_path / "b"])
    assert library.get("sentiment").description == "second"
    assert library.get("sentiment").layer == str(tmp_path / "b")
    assert library.get("sentiment.en").layer == "builtin"


def test_load_refuses_a_missing_directory(tmp_path: Path):
    """A misspelt --tasks must not silently give the built-in tasks only."""
    with pytest.raises(ConfigError, match="none"):
        PromptLibrary.load([tmp_path / "none"])
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file"):
        PromptLibrary.load([tmp_path / "file"])


def test_load_with_a_broken_file_serves_the_others(tmp_path: Path, events: Recorder):
    """One bad file must not take the rest down, nor hide behind a built-in task of its name."""
    (tmp_path / "good.prompt").write_text(LABEL_PROMPT, encoding="utf-8")
    (tmp_path / "sentiment.prompt").write_text(BROKEN, encoding="utf-8")
    library = open_library(tmp_path, events)
    assert events.look() == [("broken", "sentiment")]
    assert library.get("good").kind == "label"
    assert "sentiment" not in library.names()
    with pytest.raises(PromptError, match="never closed") as caught:
        library.get("sentiment")
    assert caught.value.line == 1
    (problem,) = library.problems()
    assert (problem.name, problem.path, problem.has_last_good) == ("sentiment", tmp_path / "sentiment.prompt", False)
    assert not library.refresh()


def test_load_ignores_hidden_files_and_folders(tmp_path: Path, events: Recorder):
    """Editors leave lock and swap files behind."""
    (tmp_path / ".#good.prompt").write_text(BROKEN, encoding="utf-8")
    (tmp_path / "folder.prompt").mkdir()
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")
    library = open_library(tmp_path, events)
    assert library.problems() == ()
    assert {name.partition(".")[0] for name in library.names()} == BUILTIN_NAMES


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this platform has no named pipes")
def test_load_ignores_what_is_not_a_file(tmp_path: Path, events: Recorder):
    """Regression: reading a named pipe waited for ever."""
    os.mkfifo(tmp_path / "pipe.prompt")
    assert "pipe" not in open_library(tmp_path, events).names()
    assert events.look() == []


def test_refresh_sees_new_changed_and_deleted_files(tmp_path: Path, events: Recorder):
    """Editing needs no restart; an edit within the same clock tick and of the same size counts too."""
    library = open_library(tmp_path, events)
    assert not library.refresh()
    path = tmp_path / "task.prompt"
    path.write_text(LABEL_PROMPT, encoding="utf-8")
    assert library.refresh()
    first = library.get("task").version
    path.write_text(LABEL_PROMPT.replace("urgent?", "urgent!"), encoding="utf-8")
    assert library.refresh()
    assert library.get("task").version != first
    path.unlink()
    assert library.refresh()
    assert events.look() == [("added", "task"), ("changed", "task"), ("removed", "task")]
    with pytest.raises(UnknownTask):
        library.get("task")


def test_refresh_sees_a_change_that_keeps_time_and_size(tmp_path: Path, events: Recorder):
    """A file read in the tick of its last change is compared by content until the tick is surely over."""
    path = tmp_path / "task.prompt"
    path.write_text(LABEL_PROMPT, encoding="utf-8")
    stat = path.stat()
    library = open_library(tmp_path, events)
    path.write_text(LABEL_PROMPT.replace("urgent?", "urgent!"), encoding="utf-8")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert library.refresh()
    assert library.get("task").description == "is it urgent!"


def test_refresh_does_not_read_settled_files(tmp_path: Path, events: Recorder, monkeypatch: pytest.MonkeyPatch):
    """It runs before every request: an old file costs one `stat`."""
    path = tmp_path / "task.prompt"
    path.write_text(LABEL_PROMPT, encoding="utf-8")
    os.utime(path, (0, 0))
    library = open_library(tmp_path, events)
    reads: list[Path] = []
    monkeypatch.setattr("allinone.prompts.library.read_bytes", lambda file: reads.append(file) or file.read_bytes())
    library.refresh()
    assert path not in reads


def test_refresh_after_touch_changes_nothing(tmp_path: Path, events: Recorder):
    """A new time stamp on the same content is no change."""
    path = tmp_path / "task.prompt"
    path.write_text(LABEL_PROMPT, encoding="utf-8")
    library = open_library(tmp_path, events)
    before = library.get("task")
    os.utime(path, (1, 1))
    assert not library.refresh()
    assert library.get("task") is before


def test_refresh_keeps_the_last_good_version_of_a_broken_file(tmp_path: Path, events: Recorder):
    """A half-saved file reports once, serves its last good version, and recovers by itself."""
    path = tmp_path / "task.prompt"
    path.write_text(LABEL_PROMPT, encoding="utf-8")
    library = open_library(tmp_path, events)
    good = library.get("task")
    for end in (10, 200, 300):
        path.write_bytes(LABEL_PROMPT.encode()[:end])
        library.refresh()
        assert library.get("task") is good
        assert library.problems()[0].has_last_good
    assert {event.kind for event in events} == {"broken"}
    assert all("last good version stays in service" in str(event) for event in events)
    events.clear()
    library.refresh()
    assert events.look() == []
    path.write_text(LABEL_PROMPT, encoding="utf-8")
    assert library.refresh()
    assert events.look() == [("changed", "task")]
    assert library.problems() == ()
    assert library.get("task").version == good.version


def test_refresh_a_new_broken_file_leaves_the_name_to_whoever_had_it(tmp_path: Path, events: Recorder):
    """While somebody begins to write an override, requests go on as before."""
    library = open_library(tmp_path, events)
    path = tmp_path / "sentiment.prompt"
    path.write_text(BROKEN, encoding="utf-8")
    library.refresh()
    assert library.get("sentiment").layer == "builtin"
    assert events.look() == [("broken", "sentiment")]
    path.write_text(LABEL_PROMPT, encoding="utf-8")
    library.refresh()
    assert library.get("sentiment").layer == str(tmp_path)
    path.unlink()
    library.refresh()
    assert library.get("sentiment").layer == "builtin"
    assert events.look() == [("changed", "sentiment"), ("changed", "sentiment")]


def test_refresh_after_atomic_replace_and_rename(tmp_path: Path, events: Recorder):
    """Editors save by replacing; a renamed file is another task."""
    path = tmp_path / "task.prompt"
    path.write_text(LABEL_PROMPT, encoding="utf-8")
    library = open_library(tmp_path, events)
    draft = tmp_path / "draft"
    draft.write_text(TEXT_PROMPT, encoding="utf-8")
    draft.replace(path)
    assert library.refresh()
    assert library.get("task").kind == "text"
    path.rename(tmp_path / "other.prompt")
    assert library.refresh()
    assert events.look() == [("changed", "task"), ("added", "other"), ("removed", "task")]


def test_refresh_when_the_directory_vanishes_and_returns(tmp_path: Path, events: Recorder):
    """A folder that is being replaced as a whole is a problem, not a crash, and costs no task."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "task.prompt").write_text(LABEL_PROMPT, encoding="utf-8")
    library = open_library(folder, events)
    shutil.rmtree(folder)
    library.refresh()
    assert library.get("task").kind == "label"
    assert [(problem.path, problem.has_last_good) for problem in library.problems()] == [(folder, True)]
    assert events.look() == [("broken", str(folder))]
    library.refresh()
    assert events.look() == []
    folder.mkdir()
    library.refresh()
    assert library.problems() == ()
    assert events.look() == [("removed", "task")]


def test_refresh_reports_a_dangling_link_as_absent(tmp_path: Path, events: Recorder):
    """A link to nowhere is no task."""
    (tmp_path / "task.prompt").symlink_to(tmp_path / "nowhere")
    library = open_library(tmp_path, events)
    assert "task" not in library.names()


def test_refresh_and_get_from_many_threads(tmp_path: Path, events: Recorder):
    """Readers always see a whole library: one of the versions that were saved, never an error."""
    path = tmp_path / "task.prompt"
    versions = [LABEL_PROMPT.replace("urgent?", f"urgent {i}") for i in range(30)]
    path.write_text(versions[0], encoding="utf-8")
    library = open_library(tmp_path, events)
    failures: list[BaseException] = []
    is_done = threading.Event()

    def read() -> None:
        try:
            while not is_done.is_set():
                library.refresh()
                assert library.get("task").description.startswith("is it urgent")
                assert library.get("sentiment").layer == "builtin"
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for i, version in enumerate(versions):
        if i % 2:
            path.write_text(version, encoding="utf-8")
        else:
            draft = tmp_path / "draft"
            draft.write_text(version, encoding="utf-8")
            draft.replace(path)
    is_done.set()
    for thread in threads:
        thread.join()
    assert failures == []
    library.refresh()
    assert library.get("task").description == "is it urgent 29"
