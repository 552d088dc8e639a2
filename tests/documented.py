"""What results/README.md says of the tables, for tests that compare it with the tables themselves."""

import re
from functools import cache
from itertools import product
from pathlib import Path

import polars as pl

ROOT = Path(__file__).parents[1]
RESULTS_PAGE = ROOT / "results" / "README.md"


@cache
def documented_tables() -> dict[str, frozenset[str]]:
    """The documented columns of each table, by its name without `.parquet`."""
    found: dict[str, frozenset[str]] = {}
    for section in re.split(r"^### ", RESULTS_PAGE.read_text(encoding="utf-8"), flags=re.M)[1:]:
        title, _, body = section.partition("\n")
        columns = frozenset(_columns_of_first_table(body))
        for name in re.findall(r"`(\w+)\.parquet`", title):
            found[name] = columns
    return found


def documented_columns(table: str) -> frozenset[str]:
    """The documented columns of one table; `table` is its name without `.parquet`."""
    return documented_tables()[table]


def documentation_gaps(study: Path) -> list[str]:
    """What a finished study's folder and the page do not have in common, a line each."""
    gaps = []
    for path in sorted(study.rglob("*.parquet")):
        if path.stem not in documented_tables():
            gaps.append(f"{path.name}: not in {RESULTS_PAGE.name}")
            continue
        columns, known = set(pl.read_parquet_schema(path)), documented_columns(path.stem)
        gaps += [f"{path.name}: {name} is not documented" for name in sorted(columns - known)]
        gaps += [f"{path.name}: {name} is documented only" for name in sorted(known - columns)]
    return gaps


def _columns_of_first_table(body: str) -> list[str]:
    """The names in the first cells of the table, with those of their intervals."""
    rows = [_cells(line) for line in _first_table(body)]
    header = rows[0]
    interval = header.index("interval") if "interval" in header else None
    names = []
    for row in rows[2:]:
        for text in re.findall(r"`([^`]+)`", row[0]):
            for name in _expanded(text):
                names.append(name)
                if interval is not None and row[interval] == "yes":
                    names += [f"{name}_low", f"{name}_high"]
    return names


def _first_table(body: str) -> list[str]:
    lines = body.splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith("|"))
    end = next((at for at in range(start, len(lines)) if not lines[at].startswith("|")), None)
    return lines[start:end]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def _expanded(text: str) -> list[str]:
    """`a_q{05,25}` is a_q05 and a_q25, as in a shell."""
    parts = re.split(r"\{([^}]*)\}", text)
    choices = [part.split(",") if at % 2 else [part] for at, part in enumerate(parts)]
    return ["".join(chosen) for chosen in product(*choices)]
