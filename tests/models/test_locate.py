"""From a name to a place: bundled, paths, pulled models, Hugging Face's cache; and what to do about all others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from make_files import write_folder, write_gguf

from allinone.config import Settings
from allinone.errors import ConfigError, UnknownModel, WeightsNotFound
from allinone.models import locate
from allinone.models.locate import downloaded_models, locate_model


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Folders of the test, and an empty Hugging Face cache."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    return Settings.from_env({"ALLINONE_HOME": str(tmp_path / "home"), "ALLINONE_CACHE": str(tmp_path / "cache")})


def test_locate_bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    """The default, and by name; an installation without it says so."""
    monkeypatch.setattr(locate.resources, "files", lambda package: tmp_path)
    with pytest.raises(WeightsNotFound, match="bundled model is missing"):
        locate_model(None, settings)
    (tmp_path / "bundled").mkdir()
    write_gguf(tmp_path / "bundled" / "bundled-0.gguf")
    for spec in (None, "bundled"):
        location = locate_model(spec, settings)
        assert (location.spec, location.kind) == ("bundled", "gguf")
        assert location.path.name == "bundled-0.gguf"
        assert location.cache_key.startswith("bundled-0-")
    for newer in ("bundled-9.gguf", "bundled-10.gguf"):
        write_gguf(tmp_path / "bundled" / newer)
        assert locate_model("bundled", settings).path.name == newer


def test_locate_paths(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """GGUF, folder, one of its files, compiled folder; relative or not, text or Path."""
    write_gguf(tmp_path / "a.gguf")
    write_folder(tmp_path / "Tiny")
    (tmp_path / "compiled").mkdir()
    (tmp_path / "compiled" / "manifest.json").write_text("{}")
    assert locate_model(tmp_path / "a.gguf", settings).kind == "gguf"
    assert locate_model(str(tmp_path / "Tiny"), settings).kind == "safetensors"
    assert locate_model(tmp_path / "Tiny" / "model.safetensors", settings).path == tmp_path / "Tiny"
    assert locate_model(tmp_path / "compiled", settings).kind == "compiled"
    monkeypatch.chdir(tmp_path)
    assert locate_model("Tiny", settings).path == tmp_path / "Tiny"
    assert locate_model("./a.gguf", settings).path.is_absolute()


def test_locate_pulled_models(settings: Settings) -> None:
    """By hub id, by the catalog's short name, whatever the case; a download in progress is not a model."""
    write_folder(settings.models_dir / "Qwen" / "Qwen2-0.5B-Instruct")
    (settings.models_dir / ".partial" / "Qwen--Qwen2-0.5B").mkdir(parents=True)
    for spec in ("Qwen/Qwen2-0.5B-Instruct", "qwen2-0.5b-instruct"):
        assert locate_model(spec, settings).path == settings.models_dir / "Qwen" / "Qwen2-0.5B-Instruct"
    assert downloaded_models(settings) == ["Qwen/Qwen2-0.5B-Instruct"]


def test_locate_chooses_a_quantization(settings: Settings) -> None:
    """Several GGUF files of one model: by name, Q8_0 by default, otherwise a question with the choices."""
    folder = settings.models_dir / "o" / "m-GGUF"
    folder.mkdir(parents=True)
    write_gguf(folder / "m-q4_0.gguf", quantization="Q4_0")
    assert locate_model("o/m-GGUF", settings).path.name == "m-q4_0.gguf"
    write_gguf(folder / "m-f16.gguf", quantization="F16")
    with pytest.raises(ConfigError, match="has several quantisations"):
        locate_model("o/m-GGUF", settings)
    assert locate_model("o/m-GGUF:F16", settings).path.name == "m-f16.gguf"
    write_gguf(folder / "m-q8_0.gguf")
    assert locate_model("o/m-GGUF", settings).path.name == "m-q8_0.gguf"
    with pytest.raises(ConfigError, match=r"no quantisation 'q6_k'.* Known: f16, q4_0, q8_0") as caught:
        locate_model("o/m-GGUF:q6_k", settings)
    assert "allinone models pull o/m-GGUF:q6_k" in str(caught.value)


def test_locate_uses_the_hugging_face_cache(tmp_path: Path, settings: Settings) -> None:
    """What transformers has downloaded before is not downloaded again."""
    repository = tmp_path / "hf" / "hub" / "models--Qwen--Qwen2-0.5B"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc123\n")
    with pytest.raises(WeightsNotFound):
        locate_model("Qwen/Qwen2-0.5B", settings)
    write_folder(repository / "snapshots" / "abc123")
    location = locate_model("Qwen/Qwen2-0.5B", settings)
    assert location.path == repository / "snapshots" / "abc123"


def test_locate_says_how_to_get_a_known_model(settings: Settings) -> None:
    """Size, licence and command; the research licence is not hidden."""
    with pytest.raises(WeightsNotFound) as caught:
        locate_model("Qwen1.5-0.5B-Chat", settings)
    assert "1,250 MB" in caught.value.message
    assert "RESEARCH" in caught.value.message
    assert caught.value.hint == "allinone models pull Qwen/Qwen1.5-0.5B-Chat"


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("bundeld", UnknownModel, "Did you mean 'bundled'"),
        ("Qwen/Qwen2-0.5B-Instrct", UnknownModel, r"Did you mean 'Qwen/Qwen2-0\.5B-Instruct'"),
        ("someone/else", UnknownModel, "allinone models pull someone/else"),
        ("./missing.gguf", WeightsNotFound, "No such file or folder"),
        ("missing.gguf", WeightsNotFound, "No such file or folder"),
        (Path("missing"), WeightsNotFound, "No such file or folder"),
        ("", UnknownModel, "name is empty"),
        ("../../nowhere", WeightsNotFound, "No such file or folder"),
        (__file__, UnknownModel, "is not a model file"),
    ],
)
def test_locate_refuses_with_a_suggestion(
    settings: Settings, spec: str | Path, error: type[Exception], message: str
) -> None:
    """A typo, a stranger, a path: each its own sentence."""
    with pytest.raises(error, match=message):
        locate_model(spec, settings)


def test_cache_key_changes_with_the_file(tmp_path: Path, settings: Settings) -> None:
    """A changed file never meets the compiled form of the old one; an unchanged one always does."""
    file = tmp_path / "a.gguf"
    write_gguf(file)
    first = locate_model(file, settings).cache_key
    assert locate_model(str(file), settings).cache_key == first
    os.utime(file, ns=(1, 1))
    assert locate_model(file, settings).cache_key != first
    write_gguf(tmp_path / "b.gguf")
    assert locate_model(tmp_path / "b.gguf", settings).cache_key not in (first, "a")
