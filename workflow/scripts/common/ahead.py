"""Figures drawn ahead: a job that has drawn its own figure goes on with others that are due, and their jobs take these over.

What draws (altair, the JavaScript engine of vl-convert) takes longer to start than to draw a figure. Which figures a run
will draw, Snakemake's main process writes down before its first job. A figure that was drawn ahead is found by the hash
of all that it follows from, code too, so it is never taken for another one; what is left of a run is gone with the next.
"""

import glob
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from selfrepair.files.storage import file_sha256, write_bytes, write_json

FOLDER = Path(".snakemake/ahead")
PLAN = FOLDER / "plan.json"
TRIED = ".tried"


@dataclass(frozen=True)
class Drawing:
    """A figure, as its rule describes it, with paths of files.

    module: of `selfrepair.figures`; tables: by name, a file for each model; stem: of the figure's own files,
    without ending; awaited: those of its inputs that the same run makes.
    """

    module: str
    tables: dict[str, list[str]]
    notes: list[str]
    settings: dict[str, Any]
    vega: str
    stem: str
    code: list[str]
    awaited: tuple[str, ...] = ()

    def inputs(self) -> list[str]:
        return [*chain(*self.tables.values()), *self.notes, *self.code]

    def key(self) -> str:
        """The hash of all that the figure follows from."""
        described = asdict(replace(self, awaited=()))
        hashes = [_sha256(path) for path in self.inputs()]
        return hashlib.sha256(json.dumps([described, hashes]).encode()).hexdigest()

    def is_due(self, since: float) -> bool:
        """Whether the run, which began then, has made all that the figure is drawn from."""
        times = [Path(path).stat().st_mtime for path in self.awaited if Path(path).exists()]
        return len(times) == len(self.awaited) and all(made >= since for made in times)


# Draws a figure into a folder, under the paths that it has in the checkout.
Draw = Callable[[Drawing, Path], None]


def drawing_of(job: Any) -> Drawing:
    """The figure of a job of Snakemake, or of a script's `snakemake`."""
    given, params = job.input, job.params
    return Drawing(
        module=params.module,
        tables={name: [str(path) for path in given.get(name)] for name in params.tables},
        notes=[str(path) for path in given.notes],
        settings=dict(params.settings),
        vega=str(given.vega),
        stem=str(Path(job.output.png).with_suffix("")),
        code=[str(path) for path in given.code],
    )


def plan_drawings(jobs: Iterable[Any], rules: Collection[str]) -> None:
    """Write down which figures a run will draw; jobs: all of its jobs, rules: those that draw."""
    jobs = list(jobs)
    made = {str(path) for job in jobs for path in job.output}
    due = [drawing_of(job) for job in jobs if job.rule.name in rules]
    due = [replace(one, awaited=tuple(made.intersection(one.inputs()))) for one in due]
    forget_drawings()
    if len(due) > 1:
        write_json(PLAN, {"since": time.time(), "due": [asdict(one) for one in due]})


def forget_drawings() -> None:
    """Remove what a run has written down and drawn ahead, but not which figure a process died over."""
    for path in FOLDER.glob("*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.suffix != TRIED:
            path.unlink(missing_ok=True)
    with suppress(OSError):
        FOLDER.rmdir()


def make(own: Drawing, draw: Draw) -> None:
    """Draw a figure, or take it over from the job that has; then, if this one has drawn, those that are due."""
    since, plan = _plan()
    if own.stem not in [one.stem for one in plan]:
        draw(own, Path())
        return
    key = own.key()
    # Another job may be drawing it.
    with _lock(key):
        taken = (FOLDER / key).is_dir()
        if taken:
            _take_over(FOLDER / key, Path(own.stem))
        else:
            draw(own, Path())
        _done(key).touch()
    if not taken:
        for other in plan:
            try:
                if other.is_due(since):
                    _draw_ahead(other, draw)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException:  # a panic of what draws is no Exception
                continue  # the figure's own job says what is wrong


def _draw_ahead(other: Drawing, draw: Draw) -> None:
    key = other.key()
    unfinished, tried = FOLDER / f"{key}.unfinished", FOLDER / f"{key}{TRIED}"
    with suppress(Timeout), _lock(key, wait=False):
        # Over a figure that ends the process only its own job is to end, in this run or the next.
        if (FOLDER / key).is_dir() or _done(key).exists() or tried.exists():
            return
        shutil.rmtree(unfinished, ignore_errors=True)
        tried.touch()
        draw(other, unfinished)
        unfinished.rename(FOLDER / key)
        tried.unlink()


def _take_over(drawn: Path, stem: Path) -> None:
    # Of formats that are not asked for: they would show something older.
    for path in stem.parent.glob(f"{glob.escape(stem.name)}.*"):
        path.unlink()
    for path in (drawn / stem.parent).iterdir():
        write_bytes(stem.with_name(path.name), path.read_bytes())


def _plan() -> tuple[float, list[Drawing]]:
    """When the run began and what it will draw; nothing if it draws one figure, or does not lie here."""
    try:
        plan = json.loads(PLAN.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return 0.0, []
    return plan["since"], [Drawing(**one) for one in plan["due"]]


def _lock(key: str, *, wait: bool = True) -> FileLock:
    return FileLock(FOLDER / f"{key}.lock", blocking=wait)


def _done(key: str) -> Path:
    return FOLDER / f"{key}.done"


@cache
def _sha256(path: str) -> str:
    return file_sha256(Path(path))
