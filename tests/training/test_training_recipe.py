"""The training recipe speaks the product's language: same token ids, exact packing, a loss that falls."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from allinone.models.chat_template import read_gguf_template
from allinone.models.gguf import read_gguf_header
from allinone.models.tokenizer import BpeTokenizer
from allinone.prompts.library import PromptLibrary
from allinone.tasks.encoder import PromptEncoder
from allinone.tasks.task import prepare_call

ROOT = Path(__file__).parents[2]
BUNDLED = next((ROOT / "src" / "allinone" / "models" / "bundled").glob("bundled-*.gguf"))
pytestmark = [
    pytest.mark.training,
    pytest.mark.skipif(sys.version_info < (3, 11), reason="the recipe needs Python 3.11 (tomllib)"),
]


@pytest.mark.parametrize("name", PromptLibrary.load().names())
def test_recipe_renders_the_same_ids_as_the_product(name: str) -> None:
    """Training on other ids than those that are asked later would be training another task."""
    from training.packing import encode_example
    from training.prompts import load_prompts
    from training.tokenizer import Codec

    header = read_gguf_header(BUNDLED)
    encoder = PromptEncoder(
        BpeTokenizer.from_gguf(header.metadata, file="bundled"), read_gguf_template(header.metadata, name="bundled")
    )
    values = {"text": "今天真好, isn't it? <|im_end|>\n 123 ", "mood": "正面", "style": "正式"}
    prompt = PromptLibrary.load().get(name)
    values = {key: value for key, value in values.items() if f"{{{{{key}}}}}" in prompt_body(name)}
    encoded = encoder.encode(encoder.segments(prepare_call(prompt, encoder, values).messages()))

    recipe = load_prompts(ROOT / "src" / "allinone" / "prompts" / "builtin")[name]
    example = encode_example(recipe.render(values), Codec.from_gguf(BUNDLED))

    assert tuple(example.prefix) == encoded.prefix_ids
    assert tuple(example.ids) == encoded.input_ids


def prompt_body(name: str) -> str:
    """The text of a built-in prompt file."""
    return (ROOT / "src" / "allinone" / "prompts" / "builtin" / f"{name}.prompt").read_text(encoding="utf-8")


def test_packed_examples_give_the_logits_of_each_alone() -> None:
    """Examples that share a row and a prefix must not see each other."""
    import random

    import torch
    from training.model import Qwen2
    from training.packing import PAD_GROUP, Encoded, attention_mask, pack
    from training.settings import ModelShape

    torch.manual_seed(0)
    model = Qwen2(ModelShape(vocab_size=64, hidden=32, layers=2, heads=2, kv_heads=2, ffn=64)).eval()
    examples = [Encoded((1, 2, 3), [10 + i, 20 + i, 30 + i], [0, 0, 1]) for i in range(3)]
    examples.append(Encoded((), [40, 41, 42, 43], [3, 3, 3, 3]))
    rows = {k: torch.from_numpy(v.astype("int64")) for k, v in pack(examples, 24, random.Random(0)).items()}
    assert rows["ids"].shape == (1, 24)
    with torch.no_grad():
        packed = model.logits(model.hidden(rows["ids"], rows["pos"], attention_mask(rows["group"], rows["doc"])))
        for example in examples:
            alone = model(torch.tensor([[*example.prefix, *example.ids]]))[0, -1]
            at = [i for i in range(24) if rows["ids"][0, i] == example.ids[-1] and rows["group"][0, i] != PAD_GROUP]
            assert len(at) == 1
            torch.testing.assert_close(packed[0, at[0]], alone)


def test_wordings_of_the_evaluation_are_not_trained_on() -> None:
    """A wording kept out of training must differ from every wording that is trained on."""
    import yaml
    from training.wordings import load_wordings

    tables = load_wordings().values()
    trained = {tuple(w) for table in tables for language in ("zh", "en") for w in table[language]}
    systems = {s for table in tables for language in ("zh", "en") for s in table[f"{language}_systems"]}
    users = {u for table in tables for language in ("zh", "en") for u in table[f"{language}_users"]}
    text = (ROOT / "training" / "unseen_wordings.yaml").read_text(encoding="utf-8")
    unseen = [w for task in yaml.safe_load(text).values() for language in task.values() for w in language]
    assert len(unseen) >= 6
    assert not {(w["system"], w["user"]) for w in unseen} & trained
    assert not [w for w in unseen if w["system"] in systems and w["user"] in users], "made from two halves"


def test_text_tasks_are_asked_in_many_wordings() -> None:
    """Every text task has wordings of its own in both languages, and its examples render in them."""
    import random

    from training.prompts import INPUT, chat_body, load_prompts
    from training.tasks_chat import conversation
    from training.tasks_text import ask
    from training.wordings import load_text_wordings

    tables = load_text_wordings()
    prompts = load_prompts(ROOT / "src" / "allinone" / "prompts" / "builtin")
    asked = {name for name, prompt in prompts.items() if not prompt.labels and "." not in name}
    assert set(tables) == asked and len(asked) == 10
    bodies = {prompt.body for prompt in prompts.values()}
    systems = {body.split("\n", 2)[1] for body in bodies}
    for task, table in tables.items():
        for language in ("zh", "en"):
            pairs = {tuple(pair) for pair in table[language]}
            assert len(pairs) == len(table[language]) >= 10, (task, language)
            for system, user in pairs:
                assert system not in systems and chat_body(system, user) not in bodies
                assert (user.count("{{text}}"), system.count("{{text}}")) == (1, 0), (task, system)
                assert (system + user).count("{{style}}") == (task == "rewrite"), (task, system)
                assert task != "keywords" or "keywords" in system + user, "the form of the answer is said"
    rng = random.Random(0)
    for task in sorted(asked):
        seen = set()
        for number in range(80):
            text, reply = (("我门走吧", "我们走吧"), ("he go home", "He goes home."))[number % 2]
            if task == "chat":
                parts = conversation(prompts, [("嗯", "好", "中性"), (text, reply, "中性")], rng)
            else:
                parts = ask(prompts, task, text, reply, rng, style="正式")
            assert text in [p.text for p in parts if p.role == INPUT]
            assert "{{" not in "".join(p.text for p in parts)
            assert [p.text for p in parts[-2:]] == [reply, "<|im_end|>"]
            seen.add(parts[1].text)  # the system text
        assert len(seen) > 6, task


def test_every_form_offers_the_answer_and_asks_with_it_last() -> None:
    """Whatever the wording and the order, the label asked for is among those shown."""
    import random

    from training.prompts import LABEL, load_prompts
    from training.wordings import FormPool

    prompts = load_prompts(ROOT / "src" / "allinone" / "prompts" / "builtin")
    rng = random.Random(0)
    pool = FormPool(prompts, "sentiment", ("正面", "负面", "中性"), rng, varied=60)
    for number in range(300):
        parts = pool.example("今天真好" if number % 2 else "so good", ("正面", "负面", "中性")[number % 3], rng)
        label, end = parts[-2:]
        assert (label.role, end.text) == (LABEL, "<|im_end|>")
        assert label.text in "".join(p.text for p in parts[:-2])


def test_tokens_of_changed_characters_are_marked() -> None:
    """A correction is learned at what it changes; a token weighs more when one of its characters changed."""
    from training.packing import encode_example
    from training.prompts import ANSWER, EDIT, Part
    from training.tasks_correction import edited
    from training.tokenizer import Codec

    source, target = "我门去公圆玩", "我们去公园玩"
    assert edited(source, target) == ((1, 2), (4, 5))
    codec = Codec.from_gguf(BUNDLED)
    example = encode_example([Part("x", True), Part(target, False, ANSWER, edited(source, target))], codec)
    marked = "".join(codec.decode([i]) for i, r in zip(example.ids, example.roles, strict=True) if r == EDIT)
    assert {"们", "园"} <= set(marked)
    assert ANSWER in example.roles


def test_reviews_filed_wrongly_are_left_out() -> None:
    """A teacher that has not seen a review finds the one whose label contradicts all others."""
    from training.tasks_sentiment import without_slips

    things = ("房间", "早餐", "手机", "水果", "这本书", "衣服", "服务", "快递")
    good = [(f"{a}很好，{b}也很满意，喜欢{number}", "正面") for number, (a, b) in enumerate(pairs(things) * 6)]
    bad = [(f"{a}太差，{b}也很失望，后悔{number}", "负面") for number, (a, b) in enumerate(pairs(things) * 6)]
    slip = ("酒店很好，早餐也很满意，喜欢这里", "负面")

    kept = without_slips([*good, *bad, slip])

    assert slip not in kept
    assert sorted(kept) == sorted([*good, *bad])


def pairs(things: tuple[str, ...]) -> list[tuple[str, str]]:
    """All ordered pairs of different things."""
    return [(a, b) for a in things for b in things if a != b]


def test_clock_does_not_count_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped process resumes its schedule where it was; the first step compiles, and is not counted either."""
    from training import train

    times = iter((0.0, 40.0, 41.0, 42.0, 43.0, 943.0, 944.0))
    monkeypatch.setattr(train.time, "monotonic", lambda: next(times))
    clock = train.Clock()
    assert sum(clock.step() for _ in range(6)) == pytest.approx(5.0)


def test_resumed_training_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """Weights, their average, momentum and the clock come back as they were saved."""
    import torch
    from training.settings import ModelShape, Schedule, Settings
    from training.train import Run

    shape = ModelShape(vocab_size=16, hidden=8, layers=1, heads=2, kv_heads=2, ffn=16, context=16)
    schedule = Schedule(minutes=1, batch_tokens=12, scored_tasks=4, compile=False)
    settings = Settings(name="tiny", run=tmp_path, model=shape, schedule=schedule)
    rows = {name: torch.zeros(1, 12, dtype=torch.int64) for name in ("ids", "pos", "group", "doc")}
    rows |= {"role": torch.full((1, 12), 3), "ids": torch.arange(12)[None] % 16, "pos": torch.arange(12)[None]}
    first = Run(settings)
    for _ in range(2):
        first.update(first.loss(rows, 1.0, 1.0, plain=False)[0], done=0.1)
        first.step, first.elapsed_s = first.step + 1, first.elapsed_s + 3.0
    first.save()
    second = Run(settings)
    assert second.resume() and (second.step, second.elapsed_s) == (2, 6.0)
    for run in (first, second):
        torch.manual_seed(1)  # which places are scored is drawn
        run.update(run.loss(rows, 1.0, 1.0, plain=False)[0], done=0.2)
    for name, weight in first.model.named_parameters():
        assert torch.equal(weight, dict(second.model.named_parameters())[name]), name
        assert torch.equal(first.ema[name], second.ema[name]), name


def test_stopped_training_does_not_end_in_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a schedule must be neither exported nor published; the message says how to go on."""
    from training.settings import load_settings

    from training import make_model

    asked: list[str] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(command[2])
        return subprocess.CompletedProcess(command, 143 if command[2] == "training.train" else 0)

    monkeypatch.setattr(make_model.subprocess, "run", run)
    with pytest.raises(SystemExit, match="same command"):
        make_model.make(load_settings("smoke"), ROOT, is_smoke=True)
    assert asked == ["training.tokenizer", "training.corpus", "training.train"]


def test_published_model_replaces_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two models would double the package and leave the choice to their names; a plan belongs to one of them."""
    from training import make_model

    package, exported = tmp_path / "package", tmp_path / "bundled-9.gguf"
    plan = exported.with_suffix(".plan.json")
    package.mkdir()
    for name in ("bundled-1.gguf", "bundled-1.plan.json", "CARD.md"):
        (package / name).write_text("old")
    exported.write_text("new")
    plan.write_text("of an earlier calibration")

    def write_plan(file: Path) -> Path:
        plan.write_text(f"plan of {file.read_text()}")
        return plan

    monkeypatch.setattr(make_model, "write_plan", write_plan)
    assert make_model.publish(exported, package).read_text() == "new"
    assert sorted(path.name for path in package.iterdir()) == ["CARD.md", "bundled-9.gguf", "bundled-9.plan.json"]
    assert (package / "bundled-9.plan.json").read_text() == "plan of new"


def assert_transformers_agrees(folder: Path, file: Path) -> None:
    """The folder that is exported for `transformers` loads there, and the next tokens are those of the GGUF."""
    import torch
    from training.export import read_gguf
    from training.model import Qwen2
    from transformers import AutoModelForCausalLM, AutoTokenizer

    shape, weights = read_gguf(file)
    ours = Qwen2(shape).eval()
    ours.load_state_dict(weights)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    chat = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        [{"role": "user", "content": "你好 hello"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.no_grad():
        expected, found = ours(chat["input_ids"]), theirs(chat["input_ids"]).logits
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_make_model_ends_with_a_model_that_answers(data: Path) -> None:
    """From the checkout and the data folder alone: `make model PROFILE=smoke`, all of its steps, from nothing.

    The loss falls, and the product loads the file and answers. The environment is the one that runs this test.
    """
    run = ROOT / "runs" / "smoke"
    shutil.rmtree(run, ignore_errors=True)
    program = Path(sys.executable).parent
    command = [
        "make",
        "--assume-old=.venv/.installed-train",
        "model",
        "PROFILE=smoke",
        f"DATA={data}",
        f"BIN={program}",
        "ARGS=",  # not those of the make that runs this test
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    made = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr[-2000:]
    records = [json.loads(line) for line in made.stdout.splitlines() if line.startswith('{"step"')]
    assert records[-1]["answer"] < records[0]["answer"] - 1.0
    assert "(`size`)" in made.stdout, "the table of the evaluation is printed"

    (file,) = run.glob("*.gguf")
    assert_transformers_agrees(run / "hf", file)
    asked = [program / "allinone", "run", "sentiment", "太棒了", "--model", file, "--json"]
    done = subprocess.run([*map(str, asked)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["label"] in ("正面", "负面", "中性") and answer["model"].startswith(f"{file.stem}/")
