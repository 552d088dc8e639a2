"""The recipes of docs/architecture.md, as they stand there: a toy figure and a toy ablation."""

import re
import textwrap

import polars as pl
import pytest

from checkouts import ROOT, Checkout

PAGE = ROOT / "docs/architecture.md"


def recipe(title: str) -> list[str]:
    """The Python blocks under a heading of the page."""
    page = PAGE.read_text()
    section = page.split(f"### {title}\n")[1].split("\n### ")[0]
    found = re.findall(r"^( *)```python\n(.*?)^ *```", section, re.M | re.S)
    return [textwrap.dedent(text) for _, text in found]


def replace_once(checkout: Checkout, module: str, old: str, new: str) -> None:
    path = checkout.folder / f"workflow/selfrepair/{module}.py"
    text = path.read_text()
    assert text.count(old) == 1, old
    path.write_text(text.replace(old, new))


def test_a_figure_is_a_module_and_a_line(copy_of_finished):
    module, line = map(str.strip, recipe("Add a figure"))
    key, name, file = re.findall(r'"([\w-]+)"', line)[:3]
    path = copy_of_finished.folder / f"workflow/selfrepair/figures/{file}.py"
    path.write_text(f"{module}\n")
    replace_once(copy_of_finished, "catalogue", "\nFIGURES = (\n", f"\nFIGURES = (\n    {line},\n")
    # It alone is drawn, and the page of claims may show it.
    assert copy_of_finished.planned() - {"judge_claims", "write_page"} == {f"draw_{key}"}
    stem = copy_of_finished.folder / f"figures/tiny/gpt2/{key}-{name}"
    done = copy_of_finished.snakemake(f"{stem.relative_to(copy_of_finished.folder)}.png")
    assert done.returncode == 0, done.stderr
    for ending in ("html", "svg", "png", "pdf"):
        assert stem.with_suffix(f".{ending}").stat().st_size > 1000
    assert "Tiny GPT-2" in stem.with_suffix(".svg").read_text()


def test_an_ablation_is_one_object(finished, copy_of_finished):
    (half, *_) = recipe("Add an ablation")
    name, title = re.findall(r'"([\w -]+)"', half)[:2]
    variable = half.split(" =")[0]
    replace_once(copy_of_finished, "ablations", "\n# By name, in", f"\n{half}\n\n# By name, in")
    replace_once(copy_of_finished, "ablations", "MEAN, ZERO)", f"MEAN, ZERO, {variable})")
    picture = "figures/tiny/gpt2/E2-effect-against-change.svg"
    done = copy_of_finished.snakemake(
        "results/tiny/gpt2/heads.parquet",
        picture,
        ablations={
            "resample": finished.config["ablations"]["resample"],
            name: {"prompts": 24, "tokens_per_head": None},
        },
    )
    assert done.returncode == 0, done.stderr
    heads, before = (
        pl.read_parquet(c.folder / "results/tiny/gpt2/heads.parquet")
        for c in (copy_of_finished, finished)
    )
    rows = {ablation: heads.filter(ablation=ablation) for ablation in ("resample", name)}
    assert rows[name].height == rows["resample"].height == before.filter(ablation="zero").height
    assert rows["resample"].equals(before.filter(ablation="resample"))
    # Half of what a head writes is gone: about half of its direct effect on each token is left.
    left = (pl.col("ablated_direct_effect") / pl.col("direct_effect")).alias("left")
    assert rows[name].filter(selection="top").select(left)["left"].median() == pytest.approx(
        0.5, abs=0.1
    )
    assert title.capitalize() in (copy_of_finished.folder / picture).read_text()
