"""Charts in a notebook as small pictures."""

import io

import altair as alt
from PIL import Image

from figure_tables import heads_table
from selfrepair.figures.e01_self_repair_by_depth import draw
from selfrepair.figures.notebook import small_pictures


def test_a_chart_shows_as_a_png_in_a_palette():
    chart = draw(heads_table())
    before = alt.renderers.active
    try:
        small_pictures()
        bundle = chart._repr_mimebundle_(None, None)
    finally:
        alt.renderers.enable(before)
    assert set(bundle) == {"image/png"}
    picture = Image.open(io.BytesIO(bundle["image/png"]))
    assert picture.mode == "P"
    assert picture.width > 900  # 620 units and the axis
    assert "image/png" not in chart._repr_mimebundle_(None, None)
