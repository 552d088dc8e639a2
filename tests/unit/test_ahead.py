"""Figures drawn ahead by another figure's job: the same files, only those that are due, and each once."""

import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from checkouts import ROOT

sys.path.insert(0, str(ROOT / "workflow/scripts"))

from common import ahead
from common.ahead import FOLDER, Drawing, drawing_of, forget_drawings, make, plan_drawings


class Namedlist(list[Any]):
    """As Snakemake gives a job's inputs: by attribute, or by a name that is a variable."""

    def __init__(self, **named: Any) -> None:
        super().__init__(named.values())
        self.__dict__.update(named)

    def get(self, name: str) -> Any:
        return self.__dict__[name]


class Pen:
    """Draws a figure as a text, and remembers which."""

    def __init__(self) -> None:
        self.drawn: list[str] = []

    def __call__(self, drawing: Drawing, root: Path) -> None:
        self.drawn.append(drawing.module)
        (table,) = drawing.tables["heads"]
        if "broken" in Path(table).read_text():
            raise ValueError("no such column")
        stem = root / drawing.stem
        stem.parent.mkdir(parents=True, exist_ok=True)
        for ending in drawing.settings["figures.formats"]:
            stem.with_name(f"{stem.name}.{ending}").write_text(
                f"{table}: {Path(table).read_text()}"
            )


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A job that draws a figure of a table of its own, in a checkout."""
    monkeypatch.chdir(tmp_path)
    for path in ("notes.json", "draw.py"):
        Path(path).write_text("{}")

    def job(module: str) -> Any:
        table = Path(f"{module}.parquet")
        table.write_text(module)
        given = Namedlist(
            heads=[str(table)], notes=["notes.json"], vega="figures/vega.js", code=["draw.py"]
        )
        settings = {"figures.formats": ["html", "png"], "models.{model}.weights": None}
        return SimpleNamespace(
            rule=SimpleNamespace(name=f"draw_{module}"),
            input=given,
            output=Namedlist(png=f"figures/E.1/{module}.png"),
            params=SimpleNamespace(module=module, tables=["heads"], settings=settings),
        )

    return job


@pytest.fixture(autouse=True)
def as_in_a_process_of_its_own() -> None:
    ahead._sha256.cache_clear()


def planned(jobs: list[Any], *others: Any) -> list[Drawing]:
    plan_drawings([*jobs, *others], {each.rule.name for each in jobs})
    return [drawing_of(each) for each in jobs]


def test_the_first_draws_all_that_are_due_and_the_others_take_theirs_over(job):
    first, second, third = planned([job("a"), job("b"), job("c")])
    pen = Pen()
    make(first, pen)
    assert pen.drawn == ["a", "b", "c"]
    # Not under their names: their jobs have not run.
    assert sorted(path.name for path in Path("figures/E.1").iterdir()) == ["a.html", "a.png"]
    older = Path("figures/E.1/b.svg")
    older.write_text("of a format that is not asked for any more")
    make(second, pen)
    make(third, pen)
    assert pen.drawn == ["a", "b", "c"]
    assert not older.exists()
    for drawing in (first, second, third):
        alone = Path("alone")
        pen(drawing, alone)
        for ending in ("html", "png"):
            name = f"{drawing.stem}.{ending}"
            assert Path(name).read_bytes() == (alone / name).read_bytes()


@pytest.mark.parametrize("changed", ["b.parquet", "notes.json", "draw.py"])
def test_what_was_drawn_ahead_of_a_change_is_drawn_again(job, changed):
    first, second = planned([job("a"), job("b")])
    pen = Pen()
    make(first, pen)
    Path(changed).write_text("changed")
    ahead._sha256.cache_clear()
    make(second, pen)
    assert pen.drawn[:3] == ["a", "b", "b"]


def test_a_setting_is_part_of_what_a_figure_follows_from(job):
    drawing = drawing_of(job("a"))
    formats = drawing.settings | {"figures.formats": ["png"]}
    other = Drawing(**{**asdict(drawing), "settings": formats})
    assert drawing.key() != other.key()


def test_a_figure_whose_table_the_run_has_yet_to_make_is_not_drawn_ahead(job):
    table = SimpleNamespace(rule=SimpleNamespace(name="decompose"), output=["b.parquet"])
    jobs = [job("a"), job("b")]
    os.utime("b.parquet", (1, 1))
    first, second = planned(jobs, table)
    pen = Pen()
    make(first, pen)
    assert pen.drawn == ["a"]
    Path("b.parquet").write_text("made")
    make(second, pen)
    assert pen.drawn == ["a", "b"]
    assert "made" in Path("figures/E.1/b.png").read_text()


def test_a_figure_is_drawn_alone_if_no_other_is_due(job):
    (only,) = planned([job("a")])
    pen = Pen()
    make(only, pen)
    assert pen.drawn == ["a"]
    assert not FOLDER.exists()
    forget_drawings()


def test_a_figure_that_cannot_be_drawn_fails_its_own_job_alone(job):
    first, second, third = planned([job("a"), job("b"), job("c")])
    Path("b.parquet").write_text("broken")
    pen = Pen()
    make(first, pen)
    make(third, pen)
    assert pen.drawn == ["a", "b", "c"]
    with pytest.raises(ValueError, match="no such column"):
        make(second, pen)
    assert not Path("figures/E.1/b.png").exists()


def test_a_figure_that_ends_the_process_ends_its_own_job_alone(job):
    """A process that died over a figure has left a note, and no other job draws it ahead again."""
    jobs = [job("a"), job("b")]
    first, second = planned(jobs)

    class Panic(BaseException):
        pass

    pen = Pen()

    def draw(drawing: Drawing, root: Path) -> None:
        if drawing.module == "b":
            raise Panic
        pen(drawing, root)

    make(first, draw)
    assert pen.drawn == ["a"]
    forget_drawings()
    first, second = planned(jobs)  # the next run
    make(first, pen)
    assert pen.drawn == ["a", "a"]
    make(second, pen)
    assert pen.drawn == ["a", "a", "b"]


def test_nothing_is_drawn_twice_nor_waited_for_when_another_job_is_at_it(job):
    first, second = planned([job("a"), job("b")])
    pen = Pen()
    with ahead._lock(second.key()):
        make(first, pen)
    assert pen.drawn == ["a"]
    make(second, pen)
    assert pen.drawn == ["a", "b"]


def test_what_a_killed_job_has_left_half_drawn_is_not_taken_over(job):
    first, second = planned([job("a"), job("b")])
    half = FOLDER / f"{second.key()}.unfinished" / f"{second.stem}.png"
    half.parent.mkdir(parents=True)
    half.write_text("half")
    pen = Pen()
    make(first, pen)
    make(second, pen)
    assert pen.drawn == ["a", "b"]
    assert "b.parquet" in Path("figures/E.1/b.png").read_text()
