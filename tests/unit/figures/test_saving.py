"""A figure's four files."""

from __future__ import annotations

import base64
import gzip
import io
import json
import re
import struct
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import polars as pl
import pytest
from PIL import Image

from hostile_names import NAMES, elements
from selfrepair.figures import saving, vega, words

CAPTION = "The heads of </script><b>&."


def chart() -> alt.Chart:
    rows = pl.DataFrame({"x": [0.0, 1.0], "y": [2.0, 1.0], "name": "</script><b>&"})
    points = alt.Chart(rows).mark_point().encode(x="x:Q", y="y:Q", tooltip="name:N")
    return words.titled(points.properties(width=620, height=360), "Toy <i>", "A line")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    stem = tmp_path_factory.mktemp("new") / "folder" / "E1.top"
    written = saving.save_figure(chart(), CAPTION, stem, vega=stem.parents[1] / "vega.js")
    assert written == [stem.with_name(f"E1.top.{kind}") for kind in ("html", "svg", "png", "pdf")]
    return stem


def test_save_writes_four_complete_files_and_nothing_else(saved: Path) -> None:
    names = {path.name for path in saved.parent.iterdir()}
    assert names == {"E1.top.html", "E1.top.svg", "E1.top.png", "E1.top.pdf"}
    content = {name[7:]: (saved.parent / name).read_bytes() for name in names}
    assert content["svg"].startswith(b"<svg")
    assert content["svg"].rstrip().endswith(b"</svg>")
    assert content["pdf"].startswith(b"%PDF")
    assert content["png"].startswith(b"\x89PNG")


def test_png_has_two_pixels_per_unit_and_nothing_is_cropped(saved: Path) -> None:
    svg = saved.with_name("E1.top.svg").read_text()
    match = re.search(r'width="([\d.]+)" height="([\d.]+)"', svg)
    assert match is not None
    png = saved.with_name("E1.top.png").read_bytes()
    width, height = struct.unpack(">II", png[16:24])
    assert abs(width - 2 * float(match[1])) <= 2
    assert abs(height - 2 * float(match[2])) <= 2
    assert width > 2 * 620
    assert height > 2 * 360


def test_svg_is_described_once_and_not_mark_by_mark(saved: Path) -> None:
    root = ET.parse(saved.with_name("E1.top.svg")).getroot()
    assert (root.get("role"), root.get("aria-label")) == ("img", "Toy <i>")
    assert root[0].tag == "{http://www.w3.org/2000/svg}desc"
    assert root[0].text == CAPTION
    told = [key for each in root.iter() for key in each.attrib if key.startswith(("aria", "role"))]
    assert sorted(told) == ["aria-label", "role"]


def test_svg_draws_discs_as_circles_and_other_shapes_as_they_are(saved: Path) -> None:
    svg = saved.with_name("E1.top.svg").read_text()
    assert len(re.findall(r'<circle transform="[^"]*" r="[\d.]+" ', svg)) == 2
    rows = pl.DataFrame({"x": [0.0, 1.0], "name": ["a", "b"]})
    shapes = alt.Chart(rows).mark_point().encode(x="x:Q", shape=alt.Shape("name:N", legend=None))
    spec = words.titled(shapes, "Toy", "A line").to_dict()
    assert saving._drawing(spec, "").count("<circle") == 1


def test_no_name_ends_a_page_s_scripts_or_a_drawing_s_text(tmp_path: Path) -> None:
    """In a browser: tests/browser/test_figures_open.py."""

    def elements_of(names: list[str]) -> tuple[list[str], list[str]]:
        rows = pl.DataFrame({"x": range(len(names)), "name": names})
        points = alt.Chart(rows).mark_text().encode(x="x:Q", text="name:N", tooltip="name:N")
        figure = words.titled(points, " ".join(names), *names)
        stem, vega_file = tmp_path / "E1", tmp_path / "vega.js"
        saving.save_figure(figure, "\n".join(names), stem, vega=vega_file, formats=["html", "svg"])
        page, drawing = (stem.with_suffix(f".{kind}").read_text() for kind in ("html", "svg"))
        assert ET.fromstring(drawing)[0].text == "\n".join(names)
        return elements(page), elements(drawing)

    assert elements_of(NAMES) == elements_of(["a"] * len(NAMES)) == (["script"] * 3, ["svg"])


def test_a_page_has_seven_digits_of_its_data(tmp_path: Path) -> None:
    rows = pl.DataFrame(
        {"x": [1 / 3e-5, -2 / 3e9], "n": [123456789, 2], "name": ["0.123456789", "b"]}
    )
    points = alt.Chart(rows).mark_point().encode(x="x:Q", y="n:Q", tooltip="name:N")
    one = words.titled(points, "Toy", "A line")
    saving.save_figure(one, "", tmp_path / "E1", vega=tmp_path / "vega.js", formats=["html"])
    packed = re.search(r'id="packed">([^<]*)</script>', (tmp_path / "E1.html").read_text())
    assert packed is not None
    spec = json.loads(gzip.decompress(base64.b64decode(packed[1])))["spec"]
    (data,) = spec["datasets"].values()
    assert data == [
        {"x": 33333.33, "n": 123456789, "name": "0.123456789"},
        {"x": -6.666667e-10, "n": 2, "name": "b"},
    ]


def test_svg_rounds_places_and_no_words() -> None:
    rows = pl.DataFrame({"x": [0.0, 1 / 3, 1.0], "y": [2.0, 1 / 7, 1.0], "name": "0.123456"})
    points = alt.Chart(rows).mark_text().encode(x="x:Q", y="y:Q", text="name:N", opacity="y:Q")
    spec = words.titled(points, "Toy", "A line with 0.123456").to_dict()
    svg = saving._drawing(spec, "0.123456")
    assert svg.count("0.123456") == 1 + 1 + 3
    places = re.findall(r' (?:transform|d)="([^"]*)"', svg)
    assert re.search(r"\d\.\d\d\b", "".join(places))
    assert not re.search(r"\d\.\d{3}", "".join(places))
    # Places move by less than a hundredth of a unit.
    exact = saving.vl_convert.vegalite_to_svg(spec, vl_version=vega.VEGA_LITE)
    numbers = [
        [
            float(n)
            for n in re.findall(r"-?\d+\.?\d*", "".join(re.findall(r'transform="([^"]*)', x)))
        ]
        for x in (exact, svg)
    ]
    assert len(numbers[0]) == len(numbers[1]) > 20
    assert max(abs(a - b) for a, b in zip(*numbers, strict=True)) <= 0.005 + 1e-9


def test_png_keeps_the_colours_of_areas_in_a_palette(tmp_path: Path) -> None:
    # Pale bands behind far more colours than a palette holds.
    rows = pl.DataFrame({"x": range(3000), "band": [0] * 2999 + [1]})
    dots = alt.Chart(rows).mark_circle(opacity=0.4).encode(x="x:Q", y="x:Q", color="x:Q")
    bands = (
        alt.Chart(rows.tail(1)).mark_rect(color="#f2f2f2").encode(x=alt.value(0), y=alt.value(0))
    )
    both = words.titled(bands.encode(x2=alt.value(60), y2=alt.value(150)) + dots, "Toy", "A line")
    saving.save_figure(both, CAPTION, tmp_path / "E1", vega=tmp_path / "vega.js")
    exact = Image.open(
        io.BytesIO(saving.vl_convert.svg_to_png((tmp_path / "E1.svg").read_text(), 2))
    )
    exact = exact.convert("RGB")
    picture = Image.open(tmp_path / "E1.png")
    assert picture.mode == "P"
    assert picture.size == exact.size
    before, after = np.asarray(exact).astype(int), np.asarray(picture.convert("RGB")).astype(int)
    assert len(exact.getcolors(1 << 24)) > 300
    band = (before == 0xF2).all(axis=2)
    assert band.sum() > 1000
    assert (after[band] == 0xF2).all()
    differs = abs(before - after).max(axis=2)
    assert (differs > 8).mean() < 0.01


def test_formats_that_are_not_asked_for_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "E1.pdf").write_text("old")
    written = saving.save_figure(
        chart(), CAPTION, tmp_path / "E1", vega=tmp_path / "vega.js", formats=["png", "html"]
    )
    assert [path.name for path in written] == ["E1.html", "E1.png"]
    assert {path.name for path in tmp_path.iterdir()} == {"E1.html", "E1.png"}


def test_page_needs_one_script_beside_it_and_shows_the_caption(saved: Path) -> None:
    page = saved.with_name("E1.top.html").read_text()
    assert re.findall(r"<script[^>]*\ssrc=\"([^\"]*)", page) == ["../vega.js"]
    assert re.findall(r"<link[^>]*\shref=", page) == []
    assert len(re.findall(r"</script>", page)) == 3
    assert "<figcaption>The heads of &lt;/script&gt;&lt;b&gt;&amp;.</figcaption>" in page
    assert "<title>Toy &lt;i&gt;</title>" in page
    assert "../vega.js is missing" in page
    assert len(page) < 10_000
    packed = re.search(r'id="packed">([^<]*)</script>', page)
    assert packed is not None
    figure = json.loads(gzip.decompress(base64.b64decode(packed[1])))
    assert figure["spec"] == chart().to_dict()
    # It would send the data to a web site.
    assert figure["options"]["actions"]["editor"] is False


def test_a_page_beside_vega_names_it_so(tmp_path: Path) -> None:
    saving.save_figure(chart(), CAPTION, tmp_path / "E1", vega=tmp_path / "vega.js")
    assert '<script src="vega.js"></script>' in (tmp_path / "E1.html").read_text()


def test_vega_is_one_plain_script_the_same_each_time(tmp_path: Path) -> None:
    for name in ("a/vega.js", "b.js"):
        vega.save_vega(tmp_path / name)
    script = (tmp_path / "b.js").read_text()
    assert "window.vegaEmbed" in script
    assert (tmp_path / "a/vega.js").read_text() == script


def test_saving_again_gives_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    *same, pdf = saving.save_figure(
        chart(), CAPTION, tmp_path / "E1.top", vega=tmp_path.parent / "vega.js"
    )
    assert pdf.suffix == ".pdf"  # vl-convert orders a PDF's resources at random
    for path in same:
        assert path.read_bytes() == saved.with_name(path.name).read_bytes()


def test_svg_does_not_depend_on_what_the_process_has_drawn_before(tmp_path: Path) -> None:
    """Vega numbers gradients, as those of a legend of colours, over all figures of a process."""
    rows = pl.DataFrame({"x": [0.0, 1.0]})
    colour = alt.Color("x:Q", title="Colour")
    shaded = words.titled(alt.Chart(rows).mark_bar().encode(x="x:Q", color=colour), "Toy", "A line")
    found = []
    for name in ("first", "second"):
        stem = tmp_path / name
        saving.save_figure(shaded, CAPTION, stem, vega=tmp_path / "vega.js", formats=["svg"])
        found.append(stem.with_suffix(".svg").read_text())
    assert found[0] == found[1]
    assert set(re.findall(r"gradient_\d+", found[0])) == {"gradient_0"}
    assert "url(#gradient_0)" in found[0]


def test_a_failed_drawing_leaves_the_old_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "E1.svg").write_text("old")

    def fail(*_: Any, **__: Any) -> bytes:
        raise RuntimeError("no room")

    monkeypatch.setattr(saving.vl_convert, "svg_to_pdf", fail)
    with pytest.raises(RuntimeError, match="no room"):
        saving.save_figure(chart(), "", tmp_path / "E1", vega=tmp_path / "vega.js")
    assert [path.name for path in tmp_path.iterdir()] == ["E1.svg"]
    assert (tmp_path / "E1.svg").read_text() == "old"


def test_a_failed_write_leaves_no_partial_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        saving.save_figure(chart(), "", tmp_path / "E1", vega=tmp_path / "vega.js")
    assert list(tmp_path.iterdir()) == []
