"""The picture is well-formed, holds every figure, and draws bars and intervals where the numbers say."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from allinone.bench.figures import FIGURES
from allinone.bench.plot import GROUPS, NOTE, WIDTH, draw, format_value

from .reports import STEADY, make_report

SVG = "{http://www.w3.org/2000/svg}"


def _bars(svg: str) -> list[ElementTree.Element]:
    return [rect for rect in ElementTree.fromstring(svg).iter(f"{SVG}rect") if rect.get("class") == "bar"]


def test_picture_is_xml_with_one_bar_for_each_figure() -> None:
    """Names from outside (a CPU's, a model's) are escaped; a ratio has no bar."""
    svg = draw(make_report(dict.fromkeys(FIGURES, STEADY), model='<a & "b">/int8'))
    root = ElementTree.fromstring(svg)
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert root.tag == f"{SVG}svg"
    assert len(_bars(svg)) == len(FIGURES) - 1
    assert {FIGURES[name].title for group in GROUPS for name in group.names} <= set(texts)
    assert 'allinone bench · <a & "b">/int8' in texts


def test_bars_are_in_proportion_and_within_the_picture() -> None:
    """Twice the value is twice the bar, with the same scale in a group; nothing leaves the page."""
    double = [[2 * sample for sample in samples] for samples in STEADY]
    svg = draw(make_report({"label_p50_s": STEADY, "reply_ttft_s": double}))
    short, long = (float(bar.get("width", 0)) for bar in _bars(svg))
    assert long == pytest.approx(2 * short, rel=0.01)
    height = float(ElementTree.fromstring(svg).get("height", 0))
    for bar in _bars(svg):
        assert float(bar.get("x", 0)) + float(bar.get("width", 0)) < WIDTH
        assert float(bar.get("y", 0)) + float(bar.get("height", 0)) < height


def test_picture_has_both_themes_and_loads_nothing() -> None:
    """It is shown on pages of either colour, and must not call home."""
    svg = draw(make_report())
    assert "prefers-color-scheme: dark" in svg and 'class="page"' in svg
    assert "http" not in svg.replace("http://www.w3.org/2000/svg", "")


def test_busy_machine_is_said_in_the_picture() -> None:
    """A picture travels without its table."""
    assert "The machine was busy: load 9" in draw(make_report(busy=True, busy_reason="load 9"))


def test_long_reason_takes_more_lines_and_moves_the_rest_down() -> None:
    """SVG does not wrap text by itself: it would run out of the picture."""
    short, long = draw(make_report()), draw(make_report(busy=True, busy_reason="a reason for it; " * 20))
    lines = [text.text or "" for text in ElementTree.fromstring(long).iter(f"{SVG}text")]
    assert max(map(len, lines)) <= 120
    assert float(_bars(long)[0].get("y", 0)) >= float(_bars(short)[0].get("y", 0)) + 2 * NOTE


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.00342, "s", "3.42 ms"),
        (1.25, "s", "1.25 s"),
        (1040.4, "labels/s", "1,040 labels/s"),
        (212_000_000, "bytes", "212 MB"),
        (1_350_000_000, "bytes", "1.35 GB"),
        (0.612, "ratio", "0.61 ×"),
    ],
)
def test_values_are_readable(value: float, unit: str, text: str) -> None:
    """Three digits and a unit."""
    assert format_value(value, unit) == text  # type: ignore[arg-type] # parametrize knows str only
