"""The documents name what exists: functions, files, sections of the method, columns of the tables."""

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from documented import ROOT, documentation_gaps, documented_columns, documented_tables

PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
PAGES += [ROOT / folder / "README.md" for folder in ("config", "results", "figures")]
METHOD = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
# Not those of a file name (envs/selfrepair.yaml) or of an address.
DOTTED = re.compile(r"(?<![\w/.-])selfrepair(?:\.[A-Za-z_]\w*)+")
# A path of this repository: the folders that git tracks, without placeholders.
TRACKED_PATH = re.compile(
    r"(?:workflow|config|tests|docs|profiles|benchmarks|results|figures)/[\w./-]+"
)
SECTIONS_CITED = re.compile(
    r"(?:docs/method\.md|[Mm]ethod),? sections? (\d+(?:(?:, | and | or | to )\d+)*)"
)


def page_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def resolve(name: str) -> Any:
    """What a dotted path names: a module, or an attribute or annotated field of something in one."""
    parts = name.split(".")
    found: Any = importlib.import_module(parts[0])
    for at, part in enumerate(parts[1:], start=1):
        if part in getattr(found, "__annotations__", {}) or hasattr(found, part):
            found = getattr(found, part, None)
        else:
            found = importlib.import_module(".".join(parts[: at + 1]))
    return found


def cited_names(page: Path) -> list[str]:
    return sorted(set(DOTTED.findall(page.read_text(encoding="utf-8"))))


def links(text: str) -> list[str]:
    """Targets of links and images, without their anchor; code blocks hold none."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    targets = re.findall(r"\]\(([^()\s]+)\)", text)
    return [t.partition("#")[0] for t in targets if not re.match(r"[a-z]+:|#", t)]


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_function_that_a_page_names_exists(page):
    missing = []
    for name in cited_names(page):
        try:
            resolve(name)
        except ImportError as error:
            missing.append(f"{name} ({error})")
    assert not missing


def test_the_method_names_a_function_beside_its_definitions():
    for number, least in {1: 6, 2: 5, 3: 2, 4: 4, 5: 8}.items():
        section = re.split(r"^## ", METHOD, flags=re.M)[number]
        assert section.startswith(f"{number}. ")
        assert len(set(DOTTED.findall(section))) >= least, number


def test_a_name_that_does_not_exist_is_noticed():
    with pytest.raises(ImportError):
        resolve("selfrepair.vocabulary.no_such_word")
    assert DOTTED.findall("`selfrepair.a.b`, workflow/envs/selfrepair.yaml") == ["selfrepair.a.b"]


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_relative_link_leads_to_a_file(page):
    targets = links(page.read_text(encoding="utf-8"))
    assert [t for t in targets if not (page.parent / t).exists()] == []


def test_links_are_found():
    text = "[a](b.md#c) ![d](e/f.png) [g](https://h) [i](#j)\n```\n[k](l.md)\n```\n"
    assert links(text) == ["b.md", "e/f.png"]


@pytest.mark.parametrize("page", ["docs/method.md", "docs/architecture.md", "CONTRIBUTING.md"])
def test_every_path_of_the_repository_exists(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    paths = [span.rstrip("/") for span in spans if TRACKED_PATH.fullmatch(span)]
    made = ("results/", "figures/")  # by a study, but for the page about them
    paths = [p for p in paths if not p.startswith(made) or p.endswith("README.md")]
    assert paths or page == "docs/method.md"
    assert [path for path in paths if not (ROOT / path).exists()] == []


def sections() -> set[int]:
    return {int(number) for number in re.findall(r"^## (\d+)\. ", METHOD, flags=re.M)}


def cited_sections(text: str) -> set[int]:
    """Numbers after "docs/method.md section", in a list or a range, also across lines of a comment."""
    text = re.sub(r"\s*\n\s*(?:#\s*)?", " ", text)
    found = set()
    for numbers in SECTIONS_CITED.findall(text):
        ends = [int(number) for number in re.findall(r"\d+", numbers)]
        found |= set(range(ends[0], ends[-1] + 1)) if " to " in numbers else set(ends)
    return found


def test_every_section_that_the_code_cites_exists():
    assert sections() == {1, 2, 3, 4, 5, 6}
    code = [*ROOT.glob("workflow/**/*.py"), *ROOT.glob("workflow/**/*.smk")]
    cited = {str(path): cited_sections(path.read_text(encoding="utf-8")) for path in code}
    assert set().union(*cited.values()) >= {1, 2, 3, 4, 5}
    assert {path: found - sections() for path, found in cited.items() if found - sections()} == {}


def test_cited_sections_are_found():
    text = (
        "(docs/method.md section 3), docs/method.md\n    # sections 7 and 9; Method sections 1 to 3"
    )
    assert cited_sections(text) == {1, 2, 3, 7, 9}


# --- results/README.md ----------------------------------------------------------------------------


def test_every_table_of_the_catalogue_is_documented():
    from selfrepair.catalogue import EXPERIMENTS, FIGURES, PUBLISHED

    tables = {table for experiment in EXPERIMENTS for table in experiment.tables}
    tables |= {table for figure in (*FIGURES, PUBLISHED) for table in figure.tables}
    assert tables <= set(documented_tables())


def test_every_column_of_a_declared_table_is_documented():
    from selfrepair.claims.judge import SCHEMA as CLAIMS
    from selfrepair.claims.over_models import SCHEMA as OVER_MODELS
    from selfrepair.tables.summaries import SCHEMA as SUMMARIES

    assert documented_columns("claims") == set(CLAIMS)
    assert documented_columns("claims_over_models") == set(OVER_MODELS)
    for name in ("token", "neuron", "iterative"):
        assert documented_columns(f"{name}_summaries") == set(SUMMARIES)


def test_every_column_of_the_main_tables_is_documented():
    from selfrepair.tables.heads import head_tables
    from selfrepair.tables.swept import DrawnHeads
    from selfrepair.vocabulary import EFFECTS

    draw = torch.Generator().manual_seed(0)
    rows = {name: torch.randn(50, generator=draw) for name in EFFECTS}
    rows |= {name: torch.randint(4, (50,), generator=draw) for name in ("prompt", "layer", "head")}
    rows |= {"position": torch.arange(50), "top": torch.ones(50), "random": torch.ones(50)}
    swept = {"resample": DrawnHeads(rows, prompts=4)}
    heads, depth = head_tables(swept, model="made up", seed=0, resamples=10)
    assert documented_columns("heads") == set(heads.columns)
    assert documented_columns("depth") == set(depth.columns)


def test_a_column_that_is_not_documented_is_noticed(tmp_path):
    import polars as pl

    table = pl.DataFrame({name: [0] for name in documented_columns("tokens")})
    table.write_parquet(tmp_path / "tokens.parquet")
    assert documentation_gaps(tmp_path) == []
    table.rename({"region": "place"}).write_parquet(tmp_path / "tokens.parquet")
    table.write_parquet(tmp_path / "others.parquet")
    assert documentation_gaps(tmp_path) == [
        "others.parquet: not in README.md",
        "tokens.parquet: place is not documented",
        "tokens.parquet: region is documented only",
    ]
