"""`allinone doctor`: what `checkup.py` found, for people or as JSON."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import typer

from allinone.cli.checkup import Report, examine
from allinone.cli.options import BackendOption, JsonOption, ModelOption, TasksOption, ThreadsOption, choose_backend


def doctor(
    json: JsonOption = False,
    model: ModelOption = None,
    tasks: TasksOption = None,
    backend: BackendOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Check this installation, measure its speed, and say what is wrong.

    [bold]Examples[/]

    allinone doctor
    allinone doctor --model Qwen/Qwen2.5-0.5B-Instruct --threads 4
    allinone doctor --json

    Versions, CPU features and their kernels, memory, folders, tasks, model,
    tokens a second. The exit code is 1 if there is a problem (✗), and 0 if
    there is only advice (·).
    """
    from allinone.cli.output import print_json
    from allinone.cli.session import RuntimeOptions

    choose_backend(backend)
    options = RuntimeOptions(model=model, tasks=tasks, backend=backend, threads=threads)
    report = examine(options)
    if json:
        findings = [asdict(finding) for finding in report.findings]
        print_json({"healthy": report.is_healthy, **report.facts, "findings": findings})
    else:
        _print(report)
    if not report.is_healthy:
        raise typer.Exit(1)


def _print(report: Report) -> None:
    from allinone.cli.output import print_facts, print_line

    for section, facts in report.facts.items():
        print_line(typer.style(section, bold=True) if sys.stdout.isatty() else section)
        print_facts({f"  {name}": value for name, value in _for_people(section, facts).items()})
    print_line()
    for finding in report.findings:
        mark = "✗" if finding.level == "problem" else "·"
        print_line(f"{mark} {finding.message}" + (f"\n    hint: {finding.hint}" if finding.hint else ""))
    print_line("Everything works." if report.is_healthy else "Something is wrong; see ✗ above.")


def _for_people(section: str, facts: Mapping[str, Any]) -> dict[str, str]:
    """The facts of a section, in words and units."""
    from allinone.cli.output import format_bytes

    def size(num_bytes: int | None) -> str:
        return "unknown" if num_bytes is None else format_bytes(num_bytes)

    if section == "system":
        set_variables = [f"{name}={value}" for name, value in facts["environment"].items()]
        return {**facts, "environment": "\n".join(set_variables) or "nothing is set"}
    if section == "cpu":
        return {
            "name": facts["name"],
            "cores": f"{facts['num_physical_cores']}, load {facts.get('load', 'unknown')}",
            "features": ", ".join(facts["features"]) or "none of use",
            "int8 kernel": f"{facts['kernel']}, {facts['weight_type']} weights, self-check: {facts['int8_self_check']}",
        }
    if section == "memory":
        return {"available": size(facts["available_bytes"])}
    if section == "folders":
        return {
            name: f"{folder['path']}, {size(folder['free_bytes'])} free{'' if folder['writable'] else ', NOT writable'}"
            for name, folder in facts.items()
        }
    if section == "tasks":
        return {str(len(facts["names"])): ", ".join(facts["names"])}
    if section == "model" and "backend" in facts:
        backend = facts["backend"]
        return {
            "name": facts["name"],
            "path": facts["path"] or "-",
            "loaded in": f"{facts['load_s']:.2f} s",
            "backend": f"{backend['name']}, {backend['num_threads']} threads, {backend['quantization']}"
            f" (chosen by {facts['chosen_by']})",
            "context": f"{backend['max_context_tokens']:,} tokens, {size(backend['kv_bytes_per_token'])} of cache each",
            "prefill": f"{facts['prefill_tokens_per_s']:,.0f} tokens/s",
            "decode": f"{facts['decode_tokens_per_s']:,.0f} tokens/s",
        }
    return {name: str(value) for name, value in facts.items()}
