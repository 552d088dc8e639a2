"""A figure's four files."""

from __future__ import annotations

import base64
import gzip
import json
import re
import struct
from pathlib import Path
from typing import Any

import altair as alt
import polars as pl
import pytest

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
