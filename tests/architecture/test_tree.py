"""What the checkout as a whole promises: no traces of one machine, READMEs in step, dependencies pinned."""

from __future__ import annotations

import json
import re
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import allinone
from allinone.backends.onnx.import_plan import plan_file
from allinone.backends.onnx.manifest import FORMAT_VERSION
from allinone.models.files import open_model
from allinone.models.weights import sha256_files

from .places import ROOT, text_files

_MACHINE_PATH = re.compile(r"(^|[^A-Za-z0-9_.])/(home|root|work|opt|tmp|Users)/[A-Za-z]")
_FENCE = re.compile(r"^(?P<fence>`{3,})(?P<language>[^\n`]*)\n(?P<body>.*?)^(?P=fence)$", re.MULTILINE | re.DOTALL)
_TRANSLATED = {"text", "mermaid"}


def _read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_no_machine_paths() -> None:
    """A path of the machine it was written on works nowhere else."""
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in text_files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if _MACHINE_PATH.search(line)
    ]
    assert not found, "\n".join(found)


def test_package_has_one_model_and_its_card() -> None:
    """Weights are versioned: file, metadata and card carry one name; no old weights stay; 25 MB are the most."""
    (file,) = (ROOT / "src" / "allinone" / "models" / "bundled").glob("*.gguf")
    assert open_model(file).name == file.stem
    assert file.with_name("CARD.md").read_text(encoding="utf-8").startswith(f"# {file.stem}\n")
    assert file.stat().st_size <= 25_000_000
    assert max(text_files(), key=lambda path: path.stat().st_size).stat().st_size < file.stat().st_size


def test_package_has_the_import_plan_of_its_model() -> None:
    """Without one the first answer waits for measuring. Made with `allinone models import bundled --write-plan`."""
    (file,) = (ROOT / "src" / "allinone" / "models" / "bundled").glob("*.gguf")
    (plan,) = file.parent.glob("*.plan.json")
    assert plan == plan_file(file) and plan.stat().st_size < 100_000
    content = json.loads(plan.read_text(encoding="utf-8"))
    assert content["format_version"] == FORMAT_VERSION
    assert content["source_fingerprint"] == sha256_files([file])


def _headings(text: str) -> list[int]:
    """Levels of the headings, in order; code blocks may hold '#' comments."""
    return [len(marks) for marks in re.findall(r"^(#+) ", _FENCE.sub("", text), re.MULTILINE)]


def _blocks(text: str) -> list[tuple[str, str]]:
    """Language and content of each code block; blocks of prose are translated, so only their place counts."""
    return [
        (language, "" if language in _TRANSLATED else match["body"])
        for match in _FENCE.finditer(text)
        for language in [match["language"].strip()]
    ]


def test_readmes_are_in_step() -> None:
    """Chinese readers get the same page: same sections, same commands, same code, same figures."""
    english, chinese = _read("README.md"), _read("README.zh-CN.md")
    assert _headings(english) == _headings(chinese)
    assert _blocks(english) == _blocks(chinese)
    assert english.count("\n|") == chinese.count("\n|"), "the tables differ in their rows"


def _pins() -> dict[str, list[Requirement]]:
    pins: dict[str, list[Requirement]] = {}
    for line in _read("constraints.txt").splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            pins.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return pins


def test_constraints_are_exact_and_name_no_index() -> None:
    """The file says which versions; where they come from is the user's own pip configuration."""
    for pins in _pins().values():
        for pin in pins:
            assert pin.url is None and [spec.operator for spec in pin.specifier] == ["=="], str(pin)
    assert not re.search(r"https?:|--index|--find-links", _read("constraints.txt"))


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_every_dependency_is_pinned(python: str) -> None:
    """Each dependency has exactly one tested version on each Python, and it is one that pyproject.toml allows."""
    pins = _pins()
    for line in metadata.requires("qwen-allinone") or []:
        requirement = Requirement(line)
        extra = {"extra": "dev", "python_version": python}
        name = canonicalize_name(requirement.name)
        found = [pin for pin in pins.get(name, []) if pin.marker is None or pin.marker.evaluate(extra)]
        assert len(found) == 1, f"{name} on Python {python}: {[str(pin) for pin in found]}"
        (version,) = [spec.version for spec in found[0].specifier]
        assert requirement.specifier.contains(version), f"{found[0]} is not within {requirement}"


def test_changelog_knows_this_version() -> None:
    """A release without an entry tells nobody what changed."""
    assert f"## [{allinone.__version__}]" in _read("CHANGELOG.md")
