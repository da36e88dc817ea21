"""`/v1/prompts`: editing never loses anybody's work, never serves what was not saved, never leaves the folder."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Generator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from allinone.prompts import saving
from allinone.server.settings import ServerSettings

from .editing import CASES, PROMPT, Server, serving

OTHER = PROMPT.replace("甲?", "乙?")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one task and its cases."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "mine.prompt").write_text(PROMPT, encoding="utf-8")
    (folder / "mine.tests.yaml").write_text(CASES, encoding="utf-8")
    return folder


@pytest.fixture
def server(tmp_path: Path, folder: Path) -> Generator[Server]:
    """A server that edits the folder."""
    with serving(tmp_path, tasks=[folder]) as server:
        yield server


def _save(server: Server, name: str, text: str, version: str | None, **more: Any) -> Any:
    return server.call("PUT", f"/v1/prompts/{name}", {"text": text, "expected_version": version, **more})


# Who may.


REQUESTS = [
    ("GET", "/v1/prompts", None),
    ("GET", "/v1/prompts/mine", None),
    ("POST", "/v1/prompts/check", {"name": "mine", "text": OTHER}),
    ("POST", "/v1/prompts/compare", {"name": "mine", "text": OTHER, "texts": ["x"]}),
    ("POST", "/v1/prompts/mine/cases", {"text": OTHER}),
    ("PUT", "/v1/prompts/mine", {"text": OTHER, "expected_version": "x"}),
]


def test_editing_is_off_by_default(tmp_path: Path, folder: Path) -> None:
    """Without `--edit-prompts` there is nothing at these paths, for administrators neither."""
    with serving(tmp_path, tasks=[folder], settings=ServerSettings()) as server:
        for method, path, body in REQUESTS:
            assert server.call(method, path, body).status_code == 404, path
    assert (folder / "mine.prompt").read_text(encoding="utf-8") == PROMPT


def test_editing_needs_the_key_of_an_administrator(server: Server) -> None:
    """Whoever edits prompts decides what everybody is answered."""
    for method, path, body in REQUESTS:
        assert server.call(method, path, body, who="ann").status_code == 403, path
        assert server.client.request(method, path, json=body).status_code == 401, path


def test_key_of_some_tasks_edits_only_those(server: Server) -> None:
    """An administrator of one task is none of the others."""
    for method, path, body in REQUESTS[1:]:
        assert server.call(method, path, body, who="guest").status_code == 403, path
    assert server.call("GET", "/v1/prompts/sentiment", who="guest").status_code == 200
    listed = server.call("GET", "/v1/prompts", who="guest").json()["prompts"]
    assert {entry["name"].split(".")[0] for entry in listed} == {"sentiment"}


# Reading.


def test_list_has_every_task_and_every_broken_file(server: Server, folder: Path) -> None:
    """A file that cannot be used is not simply missing; one that was good before says that it is wrong now."""
    (folder / "never.prompt").write_text("no front matter", encoding="utf-8")
    (folder / "mine.prompt").write_text(PROMPT + "{{nothing}}", encoding="utf-8")
    (folder / "中文.prompt").write_text(PROMPT, encoding="utf-8")
    listed = server.call("GET", "/v1/prompts").json()
    assert listed["folder"] == str(folder)
    entries = {entry["name"]: entry for entry in listed["prompts"]}
    assert entries["sentiment"]["kind"] == "label" and entries["sentiment"]["layer"] == "builtin"
    assert entries["mine"]["version"] and entries["mine"]["error"]["line"] == 14
    assert entries["never"]["version"] is None and "front matter" in entries["never"]["error"]["message"]
    assert [entries[name]["is_editable"] for name in ("sentiment", "mine", "中文")] == [True, True, False]


def test_read_has_text_version_and_cases(server: Server, folder: Path) -> None:
    """Of the folder's file, and of a built-in one."""
    mine = server.call("GET", "/v1/prompts/mine").json()
    assert (mine["text"], mine["cases_text"], mine["errors"]) == (PROMPT, CASES, [])
    assert mine["version"] == mine["served_version"] == server.ai.tasks.get("mine").version
    assert mine["path"] == str(folder / "mine.prompt") and mine["is_editable"]
    sentiment = server.call("GET", "/v1/prompts/sentiment.en").json()
    assert sentiment["text"] == server.ai.tasks.get("sentiment.en").text and sentiment["cases_text"]
    assert server.call("GET", "/v1/prompts/sentimnt").status_code == 404


def test_read_shows_a_broken_file_as_it_lies_there(server: Server, folder: Path) -> None:
    """Whoever broke it in another editor can put it right here; what is served is another version."""
    broken = PROMPT.replace("allinone.kind", "allinone.kindd")
    served = server.ai.tasks.get("mine").version
    (folder / "mine.prompt").write_text(broken, encoding="utf-8")
    mine = server.call("GET", "/v1/prompts/mine").json()
    assert mine["text"] == broken and mine["served_version"] == served != mine["version"]
    assert mine["errors"][0]["line"] == 5 and "allinone.kind" in mine["errors"][0]["message"]
    assert _save(server, "mine", OTHER, mine["version"]).json()["errors"] == []


def test_read_of_what_is_no_text_says_so(server: Server, folder: Path) -> None:
    """Bytes that no editor could show."""
    (folder / "mine.prompt").write_bytes(b"\xff\xfe\x00")
    assert server.call("GET", "/v1/prompts/mine").status_code == 422


# Checking.


def test_check_describes_a_good_draft(server: Server) -> None:
    """As the list of tasks would, with the version that it would have and what its requests would share."""
    checked = server.call("POST", "/v1/prompts/check", {"name": "mine", "text": OTHER, "cases_text": CASES}).json()
    assert checked["ok"] is True and [label["name"] for label in checked["labels"]] == ["a", "b"]
    assert checked["version"] != server.ai.tasks.get("mine").version and checked["num_prefix_tokens"] > 10


WRONG: dict[str, tuple[str, dict[str, Any]]] = {
    "unknown key": (PROMPT.replace("config:", "konfig:"), {"line": 3, "key": "konfig"}),
    "yaml": (PROMPT.replace("{temperature: 0}", "{temperature: 0"), {"line": 4}),
    "body": (PROMPT.replace("{{text}}", "{{text}} {{other}}"), {"line": 13}),
    "no labels": (PROMPT.replace("  甲: {name: a}\n  乙: {name: b}\n", ""), {"key": "allinone.labels"}),
    "control": (PROMPT.replace("甲?", "甲\x01?"), {"line": 11}),
    "empty": ("", {"line": 1}),
}


def test_check_shows_the_line_of_what_is_wrong(server: Server) -> None:
    """The editor marks it there; the message does not repeat the place, and no path of the server is told."""
    for what, (text, place) in WRONG.items():
        checked = server.call("POST", "/v1/prompts/check", {"name": "mine", "text": text}).json()
        (problem,) = checked["errors"]
        assert checked["ok"] is False and problem["file"] == "prompt" and problem["message"], what
        assert {key: problem[key] for key in place} == place, what
        assert "mine.prompt" not in problem["message"], what


def test_check_knows_what_only_the_model_knows(server: Server) -> None:
    """Labels that are no words, a prompt longer than the context: refused before they are served, and without a run."""
    json_task = PROMPT.replace(
        "allinone.kind: label", "output: {format: json, schema: {a: string}}\nallinone.kind: json"
    )
    json_task = json_task.replace("allinone.labels:\n  甲: {name: a}\n  乙: {name: b}\n", "")
    assert server.call("POST", "/v1/prompts/check", {"name": "mine", "text": json_task}).json()["ok"] is True
    too_long = PROMPT.replace("甲?", "long " * 40_000)
    checked = server.call("POST", "/v1/prompts/check", {"name": "mine", "text": too_long}).json()
    assert checked["ok"] is False and "context" in checked["errors"][0]["message"]
    long_label = PROMPT.replace("  甲:", f"  {'甲' * 800}:")
    checked = server.call("POST", "/v1/prompts/check", {"name": "mine", "text": long_label}).json()
    assert checked["ok"] is False and "tokens long" in checked["errors"][0]["message"]
    assert server.ai.stats().num_ended == 0, "something was run"


def test_check_tells_errors_of_the_cases_apart(server: Server) -> None:
    """They belong into the other editor."""
    cases = CASES.replace("equals", "equalz")
    checked = server.call("POST", "/v1/prompts/check", {"name": "mine", "text": PROMPT, "cases_text": cases}).json()
    assert checked["errors"][0]["file"] == "cases" and checked["errors"][0]["line"] == 6
    assert "equals" in checked["errors"][0]["message"]


# Trying.


def test_compare_marks_what_changes(server: Server) -> None:
    """A draft with other labels changes every answer, the same draft none; texts that cannot be answered say why."""
    texts = ["x", "", "今天"]
    renamed = PROMPT.replace("甲", "A").replace("乙", "B")
    body = {"name": "mine", "text": renamed, "texts": texts}
    compared = server.call("POST", "/v1/prompts/compare", body).json()
    assert [row["text"] for row in compared["rows"]] == texts and compared["num_changed"] == 2
    assert [row["is_changed"] for row in compared["rows"]] == [True, False, True]
    first = compared["rows"][0]
    assert first["old"]["label"] in "甲乙" and first["new"]["label"] in "AB" and "id" not in first["new"]
    assert first["old"]["version"] == server.ai.tasks.get("mine").version != first["new"]["version"]
    assert compared["rows"][1]["new"]["error"]["code"] == "invalid_input"
    same = server.call("POST", "/v1/prompts/compare", body | {"text": PROMPT}).json()
    assert same["num_changed"] == 0


def test_compare_of_a_new_task_has_nothing_to_compare_with(server: Server) -> None:
    """The old side says so, and every answer is new."""
    body = {"name": "fresh", "text": PROMPT, "texts": ["x"]}
    (row,) = server.call("POST", "/v1/prompts/compare", body).json()["rows"]
    assert row["old"]["error"]["code"] == "unknown_task" and row["new"]["label"] and row["is_changed"]


def test_compare_gives_each_version_the_variables_that_it_knows(server: Server) -> None:
    """A draft may need one that the old version did not have; one that neither has is a mistake."""
    more = PROMPT.replace("{text: string}", "{text: string, tone: string}").replace("{{text}}", "{{text}} {{tone}}")
    body = {"name": "mine", "text": more, "texts": ["x"], "variables": {"tone": "z"}}
    (row,) = server.call("POST", "/v1/prompts/compare", body).json()["rows"]
    assert row["old"]["label"] and row["new"]["label"]
    assert server.call("POST", "/v1/prompts/compare", body | {"variables": {"tune": "z"}}).status_code == 422
    (row,) = server.call("POST", "/v1/prompts/compare", body | {"variables": {}}).json()["rows"]
    assert "tone" in row["new"]["error"]["detail"]


def test_variable_with_a_name_of_ours_is_no_crash(server: Server) -> None:
    """`client` is also an argument of the call inside."""
    text = PROMPT.replace("{text: string}", "{text: string, client: string}").replace("{{text}}", "{{text}} {{client}}")
    body = {"name": "mine", "text": text, "texts": ["x"], "variables": {"client": "z"}}
    (row,) = server.call("POST", "/v1/prompts/compare", body).json()["rows"]
    assert "'client'" in row["new"]["error"]["detail"]


def test_wrong_draft_is_not_tried(server: Server) -> None:
    """Neither compared nor run on cases; the problem is named."""
    wrong = PROMPT.replace("config:", "konfig:")
    for path, more in (("compare", {"name": "mine", "texts": ["x"]}), ("mine/cases", {})):
        refusal = server.call("POST", f"/v1/prompts/{path}", {"text": wrong, **more})
        assert refusal.status_code == 422 and "konfig" in refusal.json()["detail"]
        assert "/" not in refusal.json()["detail"], "a path of the server is told"


def test_cases_run_on_the_draft(server: Server) -> None:
    """Those of the file, as `allinone tasks check` runs them; or those that are given; or none."""
    ran = server.call("POST", "/v1/prompts/mine/cases", {"text": OTHER}).json()
    assert [case["passed"] for case in ran["cases"]] == [True, False] and ran["num_passed"] == 1
    failed = ran["cases"][1]
    assert (failed["line"], failed["description"], failed["vars"]) == (4, "impossible", {"text": "y"})
    assert "equals '丙': got" in failed["failures"][0] and failed["answer"] in "甲乙"
    given = "tests: [{vars: {text: z}, assert: [{type: label, value: A}]}]"
    text = PROMPT.replace("甲", "A").replace("{name: a}", "{name: one}")
    ran = server.call("POST", "/v1/prompts/mine/cases", {"text": text, "cases_text": given}).json()
    assert len(ran["cases"]) == 1
    assert server.call("POST", "/v1/prompts/fresh/cases", {"text": PROMPT}).json()["cases"] == []
    wrong = server.call("POST", "/v1/prompts/mine/cases", {"text": PROMPT, "cases_text": "tests: 1"})
    assert wrong.status_code == 422 and "mine.tests.yaml:1" in wrong.json()["detail"]


def test_draft_is_not_served(server: Server) -> None:
    """Whatever is tried, everybody is answered by what was saved, kept answers included."""
    before = server.call("POST", "/v1/tasks/mine", {"text": "x"}, who="ann").json()
    for method, path, body in REQUESTS[2:5]:
        assert server.call(method, path, body).status_code == 200
    after = server.call("POST", "/v1/tasks/mine", {"text": "x"}, who="ann").json()
    assert (after["version"], after["probs"]) == (before["version"], before["probs"])
    assert server.call("GET", "/v1/tasks/mine", who="ann").json()["version"] == before["version"]


def test_drafts_do_not_fill_the_prefix_cache(server: Server) -> None:
    """Each keystroke may be a new prefix: what the cache holds stays within its budget, the oldest goes first."""
    for i in range(8):
        text = PROMPT.replace("甲?", f"{i} " * 400)
        assert server.call("POST", "/v1/prompts/mine/cases", {"text": text}).status_code == 200
    stats = server.ai.stats()
    assert stats.prefix_evictions > 0 and stats.num_prefix_tokens <= 4_096
    assert server.call("POST", "/v1/tasks/mine", {"text": "x"}).status_code == 200


# Saving.


def test_saved_task_is_served_at_once(server: Server, folder: Path) -> None:
    """The next request of anybody gets the new version."""
    version = server.call("GET", "/v1/prompts/mine").json()["version"]
    saved = _save(server, "mine", OTHER, version)
    assert saved.status_code == 200 and saved.json()["text"] == OTHER
    answer = server.call("POST", "/v1/tasks/mine", {"text": "x"}, who="ann").json()
    assert answer["version"] == saved.json()["version"] == saved.json()["served_version"] != version
    assert (folder / "mine.prompt").read_bytes() == OTHER.encode()
    assert (folder / "mine.tests.yaml").read_text(encoding="utf-8") == CASES


def test_new_task_and_new_version_of_a_built_in_one_go_to_the_folder(server: Server, folder: Path) -> None:
    """The package's own files stay as they are."""
    builtin = server.call("GET", "/v1/prompts/sentiment").json()
    changed = builtin["text"].replace("description:", "description: mine ·")
    saved = _save(server, "sentiment", changed, builtin["version"])
    assert saved.json()["path"] == str(folder / "sentiment.prompt")
    assert saved.json()["cases_text"] == builtin["cases_text"], "the cases stayed behind"
    assert Path(builtin["path"]).read_text(encoding="utf-8") == builtin["text"]
    assert _save(server, "fresh.en", PROMPT, None, cases_text=CASES).status_code == 200
    assert {path.name for path in folder.iterdir() if not path.name.startswith(".")} == {
        "mine.prompt", "mine.tests.yaml", "sentiment.prompt", "sentiment.tests.yaml", "fresh.en.prompt",
        "fresh.en.tests.yaml",
    }  # fmt: skip
    assert server.call("POST", "/v1/tasks/fresh.en", {"text": "x"}, who="ann").status_code == 200


def test_what_somebody_else_changed_is_not_overwritten(server: Server, folder: Path) -> None:
    """Neither a task that was saved meanwhile, nor a file that was edited by hand, broken or not, nor a new one."""
    version = server.call("GET", "/v1/prompts/mine").json()["version"]
    assert _save(server, "mine", OTHER, version).status_code == 200
    conflict = _save(server, "mine", PROMPT, version)
    assert conflict.status_code == 409 and conflict.json()["code"] == "version_conflict"
    by_hand = OTHER + "{{"
    (folder / "mine.prompt").write_text(by_hand, encoding="utf-8")
    served = server.ai.tasks.get("mine").version
    assert _save(server, "mine", PROMPT, served).status_code == 409
    assert (folder / "mine.prompt").read_text(encoding="utf-8") == by_hand
    assert _save(server, "mine", PROMPT, None).status_code == 409
    assert _save(server, "sentiment", PROMPT, None).status_code == 409
    assert _save(server, "gone", PROMPT, version).status_code == 409
    assert not (folder / "gone.prompt").exists() and not (folder / "sentiment.prompt").exists()


def test_of_many_who_save_at_once_one_wins(server: Server, folder: Path) -> None:
    """The others are told, and the file is one of theirs, whole."""
    version = server.call("GET", "/v1/prompts/mine").json()["version"]
    texts = [PROMPT.replace("甲?", f"{i}? " * 2_000) for i in range(8)]
    codes: list[int] = []
    threads = [
        threading.Thread(target=lambda t=t: codes.append(_save(server, "mine", t, version).status_code)) for t in texts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == [200] + [409] * 7
    assert (folder / "mine.prompt").read_text(encoding="utf-8") in texts


def test_wrong_prompt_or_wrong_cases_are_not_saved(server: Server, folder: Path) -> None:
    """A save is all or nothing: cases that do not fit the prompt hold both back."""
    version = server.call("GET", "/v1/prompts/mine").json()["version"]
    before = _content(folder)
    wrong = PROMPT.replace("config:", "konfig:")
    assert _save(server, "mine", wrong, version).status_code == 422
    refusal = _save(server, "mine", OTHER, version, cases_text=CASES.replace("text: x", "txt: x"))
    assert refusal.status_code == 422 and "mine.tests.yaml:2" in refusal.json()["detail"]
    assert _save(server, "mine", "x" * 262_145, version).status_code == 422
    assert _save(server, "mine", PROMPT.replace("甲?", "字" * 90_000), version).status_code == 422
    assert _content(folder) == before


def test_blank_cases_remove_the_file(server: Server, folder: Path) -> None:
    """None leaves it, as does saving without a word about cases."""
    version = server.call("GET", "/v1/prompts/mine").json()["version"]
    version = _save(server, "mine", OTHER, version, cases_text=None).json()["version"]
    assert (folder / "mine.tests.yaml").exists()
    assert _save(server, "mine", PROMPT, version, cases_text="\n").json()["cases_text"] is None
    assert not (folder / "mine.tests.yaml").exists()


def test_newlines_are_saved_as_line_feeds(server: Server, folder: Path) -> None:
    """So that the version that is read again is the one that was saved."""
    version = server.call("GET", "/v1/prompts/mine").json()["version"]
    windows = "\ufeff" + OTHER.replace("\n", "\r\n")
    saved = _save(server, "mine", windows, version, cases_text=CASES.replace("\n", "\r\n")).json()
    assert saved["text"] == OTHER and saved["cases_text"] == CASES and saved["version"] == saved["served_version"]
    assert b"\r" not in (folder / "mine.prompt").read_bytes() + (folder / "mine.tests.yaml").read_bytes()


def _content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".allinone-save.lock"}


NO_NAMES = (
    "..", ".", "..%2Fx", "%2e%2e%2fx", "..%5Cx", "a%2Fb", "%2Fetc%2Fx", "A", "中文", "a.b.c", ".hidden", "a.", "a%00",
    "a%20b", "a%0a", "con:", "a*", "x" * 300, "mine.prompt.bak.x", "-", "~", "%F0%9F%98%80",
)  # fmt: skip


def test_names_that_are_no_plain_names_are_refused(server: Server, tmp_path: Path) -> None:
    """No name leads out of the folder, or to a file that the library would not find or that a system cannot have."""
    before = sorted(path for path in tmp_path.rglob("*") if ".db" not in path.name)
    for name in NO_NAMES:
        saved = _save(server, name, PROMPT, None, cases_text=CASES)
        assert saved.status_code in (404, 405, 422), (name, saved.text)
    assert sorted(path for path in tmp_path.rglob("*") if ".db" not in path.name) == before


def test_name_of_a_draft_is_no_path_either(server: Server) -> None:
    """In bodies names are not cut up by the router."""
    for name in ("../x", "/etc/x", "a/b", "..", "", "a\x00", "A", "a.b.c", "x\n"):
        checked = server.call("POST", "/v1/prompts/check", {"name": name, "text": PROMPT})
        assert checked.status_code == 422 or checked.json()["ok"] is False, name
        compared = server.call("POST", "/v1/prompts/compare", {"name": name, "text": PROMPT, "texts": ["x"]})
        assert compared.status_code == 422, name


def test_links_are_not_followed(server: Server, folder: Path, tmp_path: Path) -> None:
    """What a link leads to is not in the folder: it is served, as before, and edited elsewhere."""
    outside, outside_cases = tmp_path / "outside.prompt", tmp_path / "outside.yaml"
    outside.write_text(PROMPT, encoding="utf-8")
    outside_cases.write_text(CASES, encoding="utf-8")
    (folder / "linked.prompt").symlink_to(outside)
    linked = server.call("GET", "/v1/prompts/linked").json()
    assert linked["text"] == PROMPT and linked["is_editable"] is False
    refusal = _save(server, "linked", OTHER, linked["version"])
    assert refusal.status_code == 403 and "link" in refusal.json()["detail"]
    (folder / "fresh.tests.yaml").symlink_to(outside_cases)
    assert _save(server, "fresh", PROMPT, None, cases_text=CASES + "\n").status_code == 403
    (folder / "dangling.prompt").symlink_to(tmp_path / "nowhere.prompt")
    assert _save(server, "dangling", PROMPT, None).status_code == 403
    assert outside.read_text(encoding="utf-8") == PROMPT and outside_cases.read_text(encoding="utf-8") == CASES
    assert not (tmp_path / "nowhere.prompt").exists() and not (folder / "fresh.prompt").exists()


def test_server_without_a_folder_refuses_to_save(tmp_path: Path) -> None:
    """Only built-in tasks: they can be read and tried; the refusal says what to do."""
    with serving(tmp_path) as server:
        listed = server.call("GET", "/v1/prompts").json()
        assert listed["folder"] is None and not any(entry["is_editable"] for entry in listed["prompts"])
        read = server.call("GET", "/v1/prompts/sentiment").json()
        refusal = _save(server, "sentiment", read["text"], read["version"])
        assert refusal.status_code == 403 and "--tasks" in refusal.json()["hint"]
        assert server.call("POST", "/v1/prompts/sentiment/cases", {"text": read["text"]}).json()["cases"]


def test_the_last_of_several_folders_is_edited(tmp_path: Path, folder: Path) -> None:
    """It wins by name, so what is saved there is what is served."""
    last = tmp_path / "last"
    last.mkdir()
    with serving(tmp_path, tasks=[folder, last]) as server:
        read = server.call("GET", "/v1/prompts/mine").json()
        assert read["path"] == str(folder / "mine.prompt")
        saved = _save(server, "mine", OTHER, read["version"]).json()
        assert saved["path"] == str(last / "mine.prompt") and saved["served_version"] == saved["version"]
        assert (folder / "mine.prompt").read_text(encoding="utf-8") == PROMPT


def test_disk_that_does_not_take_it_leaves_the_old_files(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk, for one, at any moment before the files are put in place: no half file, nothing left over."""
    version = server.call("GET", "/v1/prompts/mine").json()["version"]
    before = _content(folder)
    sync, num_calls = os.fsync, 0

    def fail_second(descriptor: int) -> None:
        nonlocal num_calls
        num_calls += 1
        if num_calls == 2:
            raise OSError(28, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(saving.os, "fsync", fail_second)
    refusal = _save(server, "mine", OTHER, version, cases_text=CASES + "\n")
    assert refusal.status_code == 500 and refusal.json()["code"] == "store"
    assert "No space left" in refusal.json()["detail"] and "writable" in refusal.json()["hint"]
    assert _content(folder) == before
    monkeypatch.undo()
    assert _save(server, "mine", OTHER, version).status_code == 200


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
def test_saved_file_keeps_its_permissions(server: Server, folder: Path) -> None:
    """A file that a group shares stays shared."""
    (folder / "mine.prompt").chmod(0o664)
    version = server.call("GET", "/v1/prompts/mine").json()["version"]
    assert _save(server, "mine", OTHER, version).status_code == 200
    assert (folder / "mine.prompt").stat().st_mode & 0o777 == 0o664


def test_tokens_of_a_trial_are_counted(server: Server) -> None:
    """Trying is not free of charge for the key that tries."""
    server.call("POST", "/v1/prompts/compare", {"name": "mine", "text": OTHER, "texts": ["x", "y"]})
    access = asyncio.run(server.context.keys.authenticate(server.keys["admin"]))
    asyncio.run(server.context.limits.flush())
    today = datetime.now(timezone.utc).date()
    assert server.store.usage.get(access.owner, today) + server.store.usage.get(access.owner, today - timedelta(1)) > 40
