"""Fills the card of a model: the table of figures, and replies that nobody picked, from reports of `training.evaluate`.

    python -m training.card --report runs/gpu-more/report.json --before report-of-the-version-before.json

Prints both, or writes them with `--into CARD.md` between its marks; all other text of the card is written by a person.
Above: `make_model` leaves them in the run folder. Quoted figures come from `card.toml`.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomllib

QUOTED = Path(__file__).with_name("card.toml")
VERDICTS = {"aim": "aim", "must": "yes", "MISSED": "**no**"}
COUNTS = frozenset({"chat-leaks"})

Report = Mapping[str, Any]


def short_name(report: Report) -> str:
    """`bundled-3` of `bundled-3/int8`."""
    return str(report["model"]).split("/")[0]


def write_value(row: Mapping[str, Any] | None) -> str:
    """A figure as the card shows it; nothing where none was measured."""
    if row is None or row["value"] is None:
        return ""
    if row["key"] in COUNTS:
        return f"{row['value']:.0f}"
    return f"{row['value']:.1f}" if row["key"] == "size" else f"{row['value']:.3f}"


def write_bar(value: float | None) -> str:
    """A must or an aim."""
    return "" if value is None else f"{value:g}"


def table(report: Report, before: Report | None = None) -> str:
    """One line for each row: bars, our figure, the version before, naive Bayes, dedicated models, cases."""
    with QUOTED.open("rb") as file:
        quoted = tomllib.load(file)
    known = {row["key"]: row for row in before["rows"]} if before else {}
    old = short_name(before) if before else "version before"
    head = ("what", "must", "aim", short_name(report), "holds", old, "naive Bayes", "dedicated models", "cases")
    lines = [head, ("---",) * len(head)]
    for row in report["rows"]:
        key = row["key"]
        lines.append(
            (
                row["title"],
                write_bar(row["must"]),
                write_bar(row["aim"]),
                write_value(row),
                VERDICTS.get(row["holds"], ""),
                write_value(known.get(key)),
                quoted["naive_bayes"].get(key, ""),
                quoted["dedicated"].get(key, ""),
                f"{row['cases']:,}",
            )
        )
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def replies(report: Report) -> str:
    """Message, mood and reply of the first message of each topic in each language: nobody picked them."""
    shown: set[tuple[str, str]] = set()
    lines = ["| message | mood | reply |", "| --- | --- | --- |"]
    for answered in report["replies"]:
        prompt = answered["prompt"]
        topic = (prompt["language"], prompt["topic"])
        if topic in shown:
            continue
        shown.add(topic)
        reply = answered["reply"].replace("|", "\\|").replace("\n", " ")
        lines.append(f"| {prompt['text']} | {answered['mood']} | {reply} |")
    return "\n".join(lines)


def fill(card: str, parts: Mapping[str, str]) -> str:
    """The card with what stands between `<!-- NAME -->` and `<!-- /NAME -->` replaced.

    Raises:
        SystemExit: a mark is missing.
    """
    for name, text in parts.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        head, found, rest = card.partition(begin)
        _, closed, tail = rest.partition(end)
        if not found or not closed:
            raise SystemExit(f"The card has no place for the {name}: {begin} … {end}.")
        card = f"{head}{begin}\n{text}\n{end}{tail}"
    return card


def main() -> None:
    """Prints the parts, or puts them into a card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", type=Path, required=True, help="what training.evaluate --report wrote")
    parser.add_argument("--before", type=Path, help="the same of the version before")
    parser.add_argument("--into", type=Path, metavar="CARD.md", help="the card to fill, in place")
    args = parser.parse_args()
    report, before = (json.loads(f.read_text(encoding="utf-8")) if f else None for f in (args.report, args.before))
    parts = {"table": table(report, before), "replies": replies(report)}
    if args.into is None:
        print("\n\n".join(parts.values()))
    else:
        args.into.write_text(fill(args.into.read_text(encoding="utf-8"), parts), encoding="utf-8")


if __name__ == "__main__":
    main()
