"""Downloads against a hub on localhost that serves real files, breaks connections and lies."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.file_download
import pytest
from hub_stand_in import COMMIT, HubStandIn, serve
from make_files import write_folder, write_gguf

from allinone.config import Settings
from allinone.errors import ConfigError, StoreError, UnknownModel, WeightsMismatch, WeightsNotFound
from allinone.models.files import open_model
from allinone.models.hub import download
from allinone.models.hub_plan import choose_files, plan_download
from allinone.models.locate import downloaded_models, locate_model

SAFETENSORS, GGUF = "Qwen/Qwen2-0.5B-Instruct", "Qwen/Qwen2-0.5B-Instruct-GGUF"


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two small repositories: safetensors with files nobody needs, and GGUF in two quantisations."""
    root = tmp_path_factory.mktemp("hub")
    write_folder(root / "st")
    (root / "st" / "LICENSE").write_text("Apache License")
    (root / "st" / "pytorch_model.bin").write_bytes(b"x" * 1000)
    (root / "st" / "onnx").mkdir()
    (root / "st" / "onnx" / "model.safetensors").write_bytes(b"x")
    (root / "gguf").mkdir()
    write_gguf(root / "gguf" / "qwen2-0_5b-instruct-q8_0.gguf", quantization="Q8_0")
    write_gguf(root / "gguf" / "qwen2-0_5b-instruct-q4_0.gguf", quantization="Q4_0")
    return {SAFETENSORS: root / "st", GGUF: root / "gguf"}


@pytest.fixture
def hub(repositories: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[HubStandIn]:
    """A running stand-in that HF_ENDPOINT points to; retries do not wait."""
    stand_in = HubStandIn(dict(repositories))
    monkeypatch.setattr(huggingface_hub.file_download.time, "sleep", lambda seconds: None)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with serve(stand_in) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        yield stand_in


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Everything under a folder of the test."""
    return Settings.from_env({"ALLINONE_HOME": str(tmp_path / "home"), "ALLINONE_CACHE": str(tmp_path / "cache")})


def test_download_puts_a_model_in_place_that_opens(hub: HubStandIn, settings: Settings) -> None:
    """From a name to a model: only the needed files, progress up to the end, then found by its hub id."""
    plan = plan_download(SAFETENSORS, settings)
    names = [file.name for file in plan.files]
    assert names == ["LICENSE", "config.json", "merges.txt", "model.safetensors", "tokenizer_config.json", "vocab.json"]
    assert plan.licence == "Apache-2.0"
    assert plan.revision == COMMIT
    seen: list[tuple[str, int, int]] = []
    folder = download(plan, on_progress=lambda *progress: seen.append(progress))
    assert folder == settings.models_dir / "Qwen" / "Qwen2-0.5B-Instruct"
    assert sorted(file.name for file in folder.iterdir()) == names
    assert seen[-1][1:] == (plan.num_bytes, plan.num_bytes)
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    assert downloaded_models(settings) == [SAFETENSORS]
    assert open_model(locate_model(SAFETENSORS, settings).path).name == "Qwen2-0.5B-Instruct"
    assert _leftovers(settings) == []


def test_download_takes_one_gguf_by_quantization(hub: HubStandIn, settings: Settings) -> None:
    """Q8_0 unless another is named; a second one joins the first, and both can be told apart."""
    download(plan_download(GGUF, settings))
    assert locate_model(GGUF, settings).path.name == "qwen2-0_5b-instruct-q8_0.gguf"
    download(plan_download(f"{GGUF}:Q4_0", settings))
    assert locate_model(GGUF, settings).path.name == "qwen2-0_5b-instruct-q8_0.gguf"
    assert locate_model(f"{GGUF}:q4_0", settings).path.name == "qwen2-0_5b-instruct-q4_0.gguf"
    with pytest.raises(ConfigError, match=r"no quantisation 'q4_1'\. Did you mean 'q4_0'\? Known: q4_0, q8_0"):
        plan_download(f"{GGUF}:q4_1", settings)


def test_download_continues_within_a_call_when_the_connection_breaks(hub: HubStandIn, settings: Settings) -> None:
    """Two cuts in the middle of the weights: the rest is asked for by range, the file is whole."""
    hub.break_after["model.safetensors"] = [400_000, 500_000]
    folder = download(plan_download(SAFETENSORS, settings))
    ranges = hub.ranges_of("model.safetensors")
    assert len(ranges) == 3
    assert ranges[0] is None
    assert all(asked is not None for asked in ranges[1:])
    assert _same(folder / "model.safetensors", hub.repositories[SAFETENSORS] / "model.safetensors")


def test_download_continues_in_a_later_call(hub: HubStandIn, settings: Settings) -> None:
    """Cancelled in the middle: nothing at the destination, and the next attempt asks only for the rest."""

    def cancel(name: str, done: int, total: int) -> None:
        if name == "model.safetensors" and done > 1_000_000:
            raise KeyboardInterrupt

    plan = plan_download(SAFETENSORS, settings)
    with pytest.raises(KeyboardInterrupt):
        download(plan, on_progress=cancel)
    assert not plan.destination.exists()
    assert downloaded_models(settings) == []
    with pytest.raises(WeightsNotFound, match="is not on this machine"):
        locate_model(SAFETENSORS, settings)
    stored = (_partial(settings) / "model.safetensors.part").stat().st_size
    assert stored > 1_000_000
    hub.requests.clear()
    folder = download(plan_download(SAFETENSORS, settings))
    assert hub.ranges_of("model.safetensors") == [f"bytes={stored}-"]
    assert hub.ranges_of("config.json") == []
    assert _same(folder / "model.safetensors", hub.repositories[SAFETENSORS] / "model.safetensors")


def test_download_begins_anew_where_the_server_ignores_ranges(hub: HubStandIn, settings: Settings) -> None:
    """Some mirrors answer 200 to a request for a part: appending that would corrupt the file."""
    hub.break_after["model.safetensors"] = [400_000]
    hub.ignore_range = True
    folder = download(plan_download(SAFETENSORS, settings))
    assert _same(folder / "model.safetensors", hub.repositories[SAFETENSORS] / "model.safetensors")


@pytest.mark.parametrize(("lie", "message"), [(-100, "longer than the"), (100, "the hub announced")])
def test_download_refuses_a_file_of_another_size(hub: HubStandIn, settings: Settings, lie: int, message: str) -> None:
    """The listing and the file disagree: both numbers are named, nothing is kept, the truth works afterwards."""
    actual = (hub.repositories[SAFETENSORS] / "model.safetensors").stat().st_size
    hub.announced_bytes["model.safetensors"] = actual + lie
    with pytest.raises(WeightsMismatch, match=message) as caught:
        download(plan_download(SAFETENSORS, settings))
    assert "model.safetensors" in str(caught.value)
    assert f"{actual + lie:,}" in str(caught.value)
    assert not (_partial(settings) / "model.safetensors.part").exists()
    hub.announced_bytes.clear()
    open_model(download(plan_download(SAFETENSORS, settings)))


def test_download_refuses_a_shorter_file_when_it_continues(hub: HubStandIn, settings: Settings) -> None:
    """Everything the server has is here already, and still less than announced: it answers 416."""
    actual = (hub.repositories[SAFETENSORS] / "model.safetensors").stat().st_size
    hub.announced_bytes["model.safetensors"] = actual + 1
    plan = plan_download(SAFETENSORS, settings)
    _partial(settings).mkdir(parents=True)
    part = _partial(settings) / "model.safetensors.part"
    part.write_bytes((hub.repositories[SAFETENSORS] / "model.safetensors").read_bytes())
    with pytest.raises(WeightsMismatch, match="shorter than the hub announced"):
        download(plan)
    assert not part.exists()


def test_download_refuses_other_content_of_the_same_size(hub: HubStandIn, settings: Settings) -> None:
    """The SHA-256 of large files is checked; a damaged file is thrown away and not continued."""
    hub.announced_sha256["model.safetensors"] = "f" * 64
    with pytest.raises(WeightsMismatch, match=f"the hub announced {'f' * 64}"):
        download(plan_download(SAFETENSORS, settings))
    hub.announced_sha256.clear()
    open_model(download(plan_download(SAFETENSORS, settings)))


def test_download_recovers_from_a_damaged_part(hub: HubStandIn, settings: Settings) -> None:
    """Bytes that rotted between two attempts are found by the hash; the attempt after that begins anew."""
    plan = plan_download(SAFETENSORS, settings)
    _partial(settings).mkdir(parents=True)
    (_partial(settings) / "model.safetensors.part").write_bytes(b"rotten" * 1000)
    with pytest.raises(WeightsMismatch, match="SHA-256"):
        download(plan)
    open_model(download(plan))


@pytest.mark.parametrize(
    ("status", "headers", "error", "message"),
    [
        (503, {}, WeightsNotFound, "answered 503"),
        (429, {}, WeightsNotFound, "wait a few minutes"),
        (404, {"X-Error-Code": "RepoNotFound"}, UnknownModel, "has no model 'Qwen/Qwen2-0.5B-Instruct'"),
        (401, {"X-Error-Code": "RepoNotFound"}, UnknownModel, "or it is private"),
        (403, {"X-Error-Code": "GatedRepo"}, WeightsNotFound, "is gated"),
        (403, {}, WeightsNotFound, "HF_TOKEN has no access"),
    ],
)
def test_plan_download_explains_what_the_hub_answers(
    hub: HubStandIn, settings: Settings, status: int, headers: dict[str, str], error: type[Exception], message: str
) -> None:
    """Each status becomes one sentence and a hint."""
    hub.status["/api/"] = status
    hub.headers = headers
    with pytest.raises(error, match=message):
        plan_download(SAFETENSORS, settings)


@pytest.mark.parametrize("status", [404, 503])
def test_download_explains_a_file_that_is_refused(hub: HubStandIn, settings: Settings, status: int) -> None:
    """The listing worked, a file does not: file and status are named, what was fetched stays for the next attempt."""
    plan = plan_download(SAFETENSORS, settings)
    hub.status[f"/{SAFETENSORS}/resolve/{COMMIT}/vocab.json"] = status
    with pytest.raises(WeightsNotFound, match=rf"answered {status} for vocab\.json"):
        download(plan)
    hub.status.clear()
    hub.requests.clear()
    download(plan)
    assert hub.ranges_of("model.safetensors") == []


def test_plan_download_suggests_names(hub: HubStandIn, settings: Settings) -> None:
    """A typo is a typo of something; an impossible id is refused before the network."""
    with pytest.raises(UnknownModel, match=r"Did you mean 'Qwen/Qwen2-0\.5B-Instruct'"):
        plan_download("Qwen/Qwen2-0.5B-Instrukt", settings)
    hub.requests.clear()
    for impossible in ("../../etc/passwd", "no owner", "", "a/b/c"):
        with pytest.raises(UnknownModel, match="is not a hub id"):
            plan_download(impossible, settings)
    assert hub.requests == []


def test_plan_download_without_network(hub: HubStandIn, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens, offline mode, an unusable address, a login page: one sentence each."""
    hub.answer_html = True
    with pytest.raises(WeightsNotFound, match="does not answer like a hub"):
        plan_download(SAFETENSORS, settings)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WeightsNotFound, match=r"could not be fetched from http://127\.0\.0\.1:9"):
        plan_download(SAFETENSORS, settings)
    for address in ("hf-mirror.example", "ftp://x", "http://", "http://[bad"):
        monkeypatch.setenv("HF_ENDPOINT", address)
        with pytest.raises(ConfigError, match="HF_ENDPOINT is"):
            plan_download(SAFETENSORS, settings)
    monkeypatch.delenv("HF_ENDPOINT")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsNotFound, match="HF_HUB_OFFLINE is set"):
        plan_download(SAFETENSORS, settings)


def test_download_when_the_hub_vanishes(hub: HubStandIn, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every connection is cut before a single byte: it gives up and says so."""
    plan = plan_download(SAFETENSORS, settings)
    hub.break_after["config.json"] = [0] * 20
    with pytest.raises(WeightsNotFound, match=r"config\.json could not be fetched"):
        download(plan)


def test_download_into_a_folder_that_cannot_be_written(hub: HubStandIn, tmp_path: Path) -> None:
    """A file is in the way (a read-only home for a user who is not root looks the same): StoreError with a hint."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "models").write_text("in the way")
    settings = Settings.from_env({"ALLINONE_HOME": str(tmp_path / "home")})
    with pytest.raises(StoreError, match="ALLINONE_HOME"):
        download(plan_download(SAFETENSORS, settings))


def test_download_needs_space(hub: HubStandIn, settings: Settings) -> None:
    """Asked before the first byte: needed and free are both named."""
    hub.announced_bytes["model.safetensors"] = 10**15
    with pytest.raises(StoreError, match=r"needs 1,000,000,00\d MB more, .* MB free"):
        download(plan_download(SAFETENSORS, settings))


def test_download_is_exclusive(hub: HubStandIn, settings: Settings) -> None:
    """Two processes would write into the same file."""
    from filelock import FileLock

    plan = plan_download(SAFETENSORS, settings)
    _partial(settings).mkdir(parents=True)
    with (
        FileLock(settings.models_dir / ".partial" / f"{SAFETENSORS.replace('/', '--')}.lock"),
        pytest.raises(StoreError, match="by another process"),
    ):
        download(plan)


def test_download_replaces_an_older_copy_only_at_the_end(hub: HubStandIn, settings: Settings) -> None:
    """A pull that fails leaves the working model as it was; one that succeeds leaves nothing of the old one."""
    plan = plan_download(SAFETENSORS, settings)
    plan.destination.mkdir(parents=True)
    (plan.destination / "old.txt").write_text("old")
    hub.announced_sha256["model.safetensors"] = "f" * 64
    with pytest.raises(WeightsMismatch):
        download(plan_download(SAFETENSORS, settings))
    assert [file.name for file in plan.destination.iterdir()] == ["old.txt"]
    download(plan)
    assert not (plan.destination / "old.txt").exists()
    assert _leftovers(settings) == []


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["m-q4_0.gguf"], ["m-q4_0.gguf"]),
        (["m.Q4_K_M.gguf", "m.Q8_0.gguf", "LICENSE"], ["LICENSE", "m.Q8_0.gguf"]),
        (["model.safetensors", "tokenizer.json", "vocab.json"], ["model.safetensors", "tokenizer.json"]),
        (
            ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"],
            ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"],
        ),
    ],
)
def test_choose_files_takes_what_is_needed(names: list[str], expected: list[str]) -> None:
    """One GGUF or one set of safetensors, never both, and no second copy of the tokenizer."""
    assert choose_files(names, hub_id="o/m") == expected


def test_choose_files_refuses_what_it_cannot_read() -> None:
    """Only PyTorch files, only parts of a split GGUF, paths that leave the folder."""
    for names in (["pytorch_model.bin"], ["m-q8_0-00001-of-00002.gguf"], ["../m-q8_0.gguf"], []):
        with pytest.raises(WeightsNotFound, match="no weights that can be read"):
            choose_files(names, hub_id="o/m")
    with pytest.raises(ConfigError, match="has several quantisations"):
        choose_files(["m-q4_0.gguf", "m-q5_0.gguf"], hub_id="o/m")


def _partial(settings: Settings) -> Path:
    return settings.models_dir / ".partial" / SAFETENSORS.replace("/", "--") / COMMIT


def _leftovers(settings: Settings) -> list[str]:
    return [file.name for file in (settings.models_dir / ".partial").iterdir() if file.suffix != ".lock"]


def _same(file: Path, other: Path) -> bool:
    return hashlib.sha256(file.read_bytes()).digest() == hashlib.sha256(other.read_bytes()).digest()
