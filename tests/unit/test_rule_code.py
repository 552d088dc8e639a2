"""The code of a rule: every file that its script runs, whatever the form of the import, and no other."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "workflow/scripts"))

from common.rule_code import UntraceableImport, code_of, imported_files  # noqa: E402

FILES = {
    "scripts/common/adapter.py": "import os\n",
    "scripts/common/settings.py": "from .adapter import run\n",
    "selfrepair/__init__.py": "",
    "selfrepair/errors.py": "",
    "selfrepair/tables/__init__.py": "",
    "selfrepair/tables/means.py": "from ..errors import InputError\n",
    "selfrepair/tables/heads.py": "from . import means\n",
    "selfrepair/figures/__init__.py": "",
    "selfrepair/figures/e01.py": "from .. import errors\n",
}


@pytest.fixture
def library(tmp_path: Path):
    """A small library and a script with the given text; returns the script's code without `workflow/`."""
    for name, text in FILES.items():
        path = tmp_path / "workflow" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def traced(text: str, *modules: str) -> set[str]:
        (tmp_path / "workflow/scripts/rule.py").write_text(text)
        code_of.cache_clear()
        imported_files.cache_clear()
        code = code_of("rule", tmp_path, modules)
        assert code == sorted(code)
        return {path.removeprefix("workflow/") for path in code} - {"scripts/rule.py"}

    return traced


HEADS = {"selfrepair/tables/heads.py", "selfrepair/tables/means.py", "selfrepair/errors.py"}
MEANS = HEADS - {"selfrepair/tables/heads.py"}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("from selfrepair.tables.heads import table", HEADS),
        ("from selfrepair.tables import heads", HEADS),
        ("from selfrepair.tables import means, heads", HEADS),
        ("import selfrepair.tables.means", MEANS),
        ("import selfrepair.tables.means as m, selfrepair.errors", MEANS),
        ("from selfrepair import errors", {"selfrepair/errors.py"}),
        ("from selfrepair.tables.means import *", MEANS),
        ("def main():\n    from selfrepair.tables.means import x", MEANS),
        (
            "try:\n    import selfrepair.errors\nexcept ImportError:\n    pass",
            {"selfrepair/errors.py"},
        ),
        (
            "from common.settings import machine_of",
            {"scripts/common/settings.py", "scripts/common/adapter.py"},
        ),
        ("from common import adapter", {"scripts/common/adapter.py"}),
        ("import polars as pl\nfrom pathlib import Path", set()),
        ("from importlib import metadata\nimport importlib.metadata", set()),
    ],
)
def test_every_form_of_import_is_followed(library, text, code):
    assert library(text) == code


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("if TYPE_CHECKING:\n    from selfrepair.errors import X", set()),
        ("if typing.TYPE_CHECKING:\n    from selfrepair.errors import X", set()),
        (
            "if TYPE_CHECKING:\n    pass\nelse:\n    import selfrepair.errors",
            {"selfrepair/errors.py"},
        ),
        ("if not TYPE_CHECKING:\n    import selfrepair.errors", {"selfrepair/errors.py"}),
    ],
)
def test_imports_for_type_checkers_do_not_count(library, text, code):
    assert library(text) == code


@pytest.mark.parametrize(
    "text",
    [
        "import selfrepair",
        "from selfrepair import sweep",
        "import selfrepair.tables",
        "from selfrepair.tables import nothing",
        "from selfrepair.tables import *",
        "from selfrepair.gone import x",
        "import selfrepair.gone",
        "from common import gone",
        "import common",
        "import importlib",
        "from importlib import import_module",
        "from importlib import import_module as load",
        "import importlib.util",
        "from importlib import util",
        "import runpy",
        "__import__('selfrepair.errors')",
        "exec(open('x.py').read())",
    ],
)
def test_what_cannot_be_resolved_is_refused(library, text):
    with pytest.raises(UntraceableImport, match=r"workflow/scripts/rule.py:1: "):
        library(text)


def test_a_script_that_imports_by_name_has_the_modules_that_its_rule_names(library):
    text = "from importlib import import_module"
    assert library(text, "selfrepair.figures.e01") == {
        "selfrepair/figures/e01.py",
        "selfrepair/errors.py",
    }
    with pytest.raises(UntraceableImport, match=r"selfrepair\.figures\.e99"):
        library(text, "selfrepair.figures.e99")


def test_files_that_nobody_imports_are_no_code():
    """The rules that share least: what one file imports, and what cleaning text has to do with sweeps."""
    root = ROOT.resolve()
    ablate, documents = set(code_of("ablate", root)), set(code_of("sample_documents", root))
    assert "workflow/selfrepair/text/cleaning.py" in documents - ablate
    assert "workflow/selfrepair/measure/sweep.py" in ablate - documents
    assert imported_files(Path("workflow/selfrepair/errors.py"), root) == []


def test_every_script_can_be_traced():
    figure = "selfrepair.figures.e01_self_repair_by_depth"
    for script in (ROOT / "workflow/scripts").glob("*.py"):
        assert code_of(script.stem, ROOT, (figure,) if script.stem == "draw" else ())
