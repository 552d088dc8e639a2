"""Tables that claims are judged by, each value of which is its own."""

import polars as pl
import pytest

from selfrepair.catalogue import FIGURES
from selfrepair.claims.claims import CLAIMS, Depth, Summary
from selfrepair.claims.judge import judge
from selfrepair.tables.summaries import summary_table


@pytest.fixture(scope="session")
def depth_columns():
    """Every column by depth that a claim reads; the n-th has the value 0.1 n, and 0.5 more in the
    last layer but one, 0.01 more for the second model."""
    wanted = [claim.value for claim in CLAIMS] + [claim.clipped for claim in CLAIMS]
    return sorted({what.column for what in wanted if isinstance(what, Depth)})


@pytest.fixture(scope="session")
def depth(depth_columns):
    """Of the models a and b; rows that no claim may read are far off."""
    rows = []
    for m, model in enumerate(("a", "b")):
        for ablation in ("mean", "resample"):
            for selection in ("all", "top"):
                for group in ("last quarter", "second half", "last layer but one"):
                    right = (ablation, selection) == ("resample", "top")
                    keys = {"model": model, "ablation": ablation, "selection": selection}
                    row = keys | {"depth": group, "n_tokens": 40, "n_prompts": 9}
                    row |= {"n_heads": 6 + m, "direct_effect": 1.0}
                    row |= {"direct_effect_low": 0.9, "direct_effect_high": 1.1}
                    for i, column in enumerate(depth_columns):
                        value = 0.1 * i + 0.01 * m + (0.5 if "one" in group else 0.0)
                        value = value if right else 99.0
                        row |= {column: value, f"{column}_low": value - 0.05}
                        row |= {f"{column}_high": value + 0.05}
                    rows.append(row)
    return pl.DataFrame(rows)


@pytest.fixture(scope="session")
def summaries():
    """Of the models a and b; the n-th claim that reads one has the value n, other rows are far off."""
    rows = []
    for model in ("a", "b"):
        for i, claim in enumerate(c for c in CLAIMS if isinstance(c.value, Summary)):
            what = claim.value
            for group in ("MLP 1", "MLP 3") if what.group is None else (what.group, "another"):
                last = group in ("MLP 3", what.group)
                for layer in (4, None):
                    value = float(i) if last and layer is None else 77.0
                    rows.append(
                        {"model": model, "experiment": what.experiment, "quantity": what.quantity}
                        | {"layer": layer, "head": None, "group": group, "value": value}
                        | {"low": value - 0.2, "high": value + 0.2, "n_prompts": 5, "n_tokens": 70}
                    )
    return summary_table(rows)


@pytest.fixture(scope="session")
def claims(depth, summaries):
    return judge(depth, summaries)


@pytest.fixture(scope="session")
def paths(claims):
    """Where each figure lies, by model; those of all models in the study's folder."""
    return {
        model: {
            figure.key: f"../../figures/s/{f'{model}/' * (figure.scope == 'model')}{figure.key}"
            for figure in FIGURES
        }
        for model in claims["model"]
    }
