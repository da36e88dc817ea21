"""Makes a model from start to end: tokenizer → corpus → train → export → calibrate → evaluate → card.

    python -m training.make_model --profile smoke --data DATA

Every step is a program of its own and leaves out what is there already, so an interrupted run is simply repeated. The
result stays in the run folder; `--publish` puts the GGUF and its import plan into the package, in place of the pair
that was there.
"""

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from allinone.loading import import_model
from allinone.models.locate import locate_model
from training.export import exported_file
from training.settings import PACKAGE, ROOT, Settings, load_settings
from training.sources import require_data

STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)


def run_step(name: str, *arguments: str | Path, output: Path | None = None) -> None:
    """Runs `python -m training.NAME`; its standard output goes to `output`, written atomically, or to ours.

    Raises:
        SystemExit: the step failed; it has said why.
    """
    print(f"── {name}", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", f"training.{name}", *map(str, arguments)]
    if output is None:
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
    else:
        partial = output.with_suffix(".partial")
        with partial.open("w", encoding="utf-8") as file:
            code = subprocess.run(command, cwd=ROOT, stdout=file, check=False).returncode
        if code == 0:
            partial.replace(output)
    if code in STOPPED:
        raise SystemExit(f"{name} was stopped. The same command goes on from there.")
    if code:
        raise SystemExit(f"{name} failed (exit code {code}).")


def is_newer(made: Path, source: Path) -> bool:
    """True when `made` is there and at least as new as what it is made from."""
    return made.exists() and made.stat().st_mtime >= source.stat().st_mtime


def make(settings: Settings, data: Path, *, is_smoke: bool) -> Path:
    """All steps of a profile; the exported file."""
    profile = ("--profile", settings.name)
    run_step("tokenizer", *profile, "--data", data)
    run_step("corpus", *profile, "--data", data)
    run_step("train", *profile, "--data", data)
    exported = exported_file(settings)
    table, report, card = (settings.run / name for name in ("table.md", "report.json", "card.md"))
    if not is_newer(table, settings.run / "ema.pt"):
        run_step("export", *profile)
        run_step("calibrate", exported, "--data", data, *(("--limit", "60") if is_smoke else ()))
        rows = ("--quick", "--only", "size", "--only", "sst2") if is_smoke else ()
        run_step("evaluate", "--gguf", exported, "--data", data, "--report", report, *rows, output=table)
    if not is_newer(card, report):
        run_step("card", "--report", report, output=card)
    print(table.read_text(encoding="utf-8"))
    return exported


def write_plan(exported: Path) -> Path:
    """Writes the import plan beside a GGUF that does not change any more: calibration is part of its hash."""
    with tempfile.TemporaryDirectory(prefix="allinone-plan-") as folder:
        import_model(locate_model(exported), Path(folder) / "compiled", write_plan=True)
    return exported.with_suffix(".plan.json")


def publish(exported: Path, package: Path = PACKAGE) -> Path:
    """Puts the file, and a plan made from it now, into the package in place of the pair that was there."""
    published = [package / file.name for file in (write_plan(exported), exported)]
    for target in published:
        partial = target.with_name(f"{target.name}.partial")
        shutil.copyfile(exported.with_name(target.name), partial)
        partial.replace(target)
    for old in [*package.glob("*.gguf"), *package.glob("*.plan.json")]:
        if old not in published:
            old.unlink()
    return package / exported.name


def main() -> None:
    """Makes the model of a profile."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="cpu")
    parser.add_argument("--data", type=Path, required=True, help="the data folder")
    parser.add_argument("--publish", action="store_true", help="replace the model in the package by it")
    args = parser.parse_args()
    data = require_data(args.data).resolve()
    exported = make(load_settings(args.profile), data, is_smoke=args.profile == "smoke")
    print(f"{exported}: {exported.parent / 'card.md'} has what its card must show")
    if args.publish:
        print(f"published as {publish(exported)}: name it in CARD.md, and put the figures there (training.card --into)")


if __name__ == "__main__":
    main()
