"""The library's layers: imports point one way, and heavy libraries stay where they belong."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "workflow/selfrepair"

# A module or package imports from those before it alone (docs/architecture.md).
ORDER = (
    *(
        "errors",
        "vocabulary",
        "formats",
        "inert",
        "ablations",
        "other_ablations",
        "catalogue",
        "nearest",
        "files",
        "text",
        "model",
        "study",
    ),
    *("measure", "tables", "claims", "published", "figures", "reading", "page", "testing"),
    *("command", "__main__"),
)
# Loaded without torch, also through other modules of ours: rules, claims and figures take no seconds.
NO_TORCH = {
    *("errors", "vocabulary", "formats", "inert", "ablations", "other_ablations", "catalogue"),
    *("study", "claims", "figures", "nearest", "reading", "page"),
    *(
        "model/sizes.py",
        "tables/tokens.py",
        "tables/iterative.py",
        "tables/compared_ablations.py",
        "tables/co_ablation.py",
        "__main__.py",
    ),
}
# The only package that draws.
ALTAIR = {"figures"}
LONGEST = 420

MODULES = sorted(
    str(path.relative_to(LIBRARY)) for path in LIBRARY.rglob("*.py") if path.name != "__init__.py"
)


def layer(module: str) -> str:
    return module.split("/")[0].removesuffix(".py")


def belongs(module: str, places: set[str]) -> bool:
    return module in places or layer(module) in places


def running(nodes: list[ast.stmt], *, functions: bool) -> Iterator[ast.AST]:
    """The nodes that run when a module is imported, and inside functions; none for type checkers."""
    pending: list[ast.AST] = [*nodes]
    while pending:
        node = pending.pop()
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not functions:
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
        else:
            pending += ast.iter_child_nodes(node)


def imports(module: str, *, functions: bool) -> Iterator[str]:
    """What a module imports: modules of ours as paths in the library, others by their dotted name."""
    path = LIBRARY / module
    here = ("selfrepair", *Path(module).parts[:-1])
    for node in running(ast.parse(path.read_text()).body, functions=functions):
        if isinstance(node, ast.Import):
            yield from (ours(name.name.split(".")) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module.split(".") if node.module else []
            if node.level:
                base = [*here[: len(here) - node.level + 1], *base]
            for name in node.names:
                whole = ours([*base, name.name])
                yield whole if whole in MODULES else ours(base)


def ours(name: list[str]) -> str:
    inside = "/".join(name[1:]) + ".py"
    return inside if name[0] == "selfrepair" and inside in MODULES else ".".join(name)


IMPORTS = {module: set(imports(module, functions=True)) for module in MODULES}
# Of these, what is loaded as soon as the module is.
AT_ONCE = {module: set(imports(module, functions=False)) for module in MODULES}


def loaded_with(module: str) -> set[str]:
    """All that importing a module imports, through modules of ours."""
    found: set[str] = set()
    pending = [module]
    while pending:
        for name in AT_ONCE.get(pending.pop(), ()):
            if name not in found:
                found.add(name)
                pending.append(name)
    return found


def test_every_module_has_its_layer():
    assert {layer(module) for module in MODULES} == set(ORDER)


def test_no_module_imports_itself_through_others():
    graph = {module: names & set(MODULES) for module, names in IMPORTS.items()}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module):
    own = ORDER.index(layer(module))
    ours_alone = IMPORTS[module] & set(MODULES)
    assert not [name for name in ours_alone if ORDER.index(layer(name)) > own]


@pytest.mark.parametrize("module", MODULES)
def test_only_modules_are_imported_from(module):
    """Never a package, which defines nothing; a name is imported from where it is defined."""
    assert not [name for name in IMPORTS[module] if name.split(".")[0] == "selfrepair"]


@pytest.mark.parametrize("module", [m for m in MODULES if belongs(m, NO_TORCH)])
def test_there_is_no_torch_where_none_is_needed(module):
    heavy = ("torch", "transformers", "transformer_lens", "safetensors.torch")
    assert not [
        name for name in loaded_with(module) if name.split(".")[0] in heavy or name in heavy
    ]


@pytest.mark.parametrize("module", [m for m in MODULES if not belongs(m, ALTAIR)])
def test_only_figures_draw(module):
    drawing = {"altair", "vl_convert"}
    assert not [
        name for name in loaded_with(module) | IMPORTS[module] if name.split(".")[0] in drawing
    ]


@pytest.mark.parametrize("path", sorted(LIBRARY.rglob("__init__.py")), ids=str)
def test_packages_hold_a_docstring_alone(path):
    if path.parent == LIBRARY:
        return  # the front door
    (only,) = ast.parse(path.read_text()).body
    assert isinstance(only, ast.Expr)
    assert isinstance(only.value, ast.Constant)


@pytest.mark.parametrize("module", MODULES)
def test_modules_can_be_read_in_one_sitting(module):
    lines = (LIBRARY / module).read_text().count("\n")
    assert lines <= LONGEST


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import selfrepair, selfrepair.__main__", {"torch", "altair"}),
        ("import selfrepair.claims.judge, selfrepair.claims.page", {"torch", "altair"}),
        ("import selfrepair.catalogue, selfrepair.study.planning", {"torch", "altair"}),
        ("import selfrepair.tables.heads", {"transformers", "altair"}),
        ("import selfrepair; selfrepair.load_results", {"torch", "transformers", "altair"}),
    ],
)
def test_a_fresh_python_loads_no_more_than_it_needs(statement, absent):
    """The same, as it happens: through libraries of others, too."""
    code = f"import sys; {statement}; print(*(name for name in {absent} if name in sys.modules))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=LIBRARY.parent)
    assert done.stdout.strip() == ""
