"""The code of a rule: its script and every module of ours that the script imports.

A rule lists these files as inputs, so editing one re-runs the rules that use it and no others. That is
only safe if no import is missed: what cannot be resolved to a file is refused, never skipped.
"""

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

SCRIPTS, SOURCES, PACKAGE = Path("workflow/scripts"), Path("workflow"), "selfrepair"
# What imports or runs files by a name made up at run time.
MACHINERY = {
    "importlib",
    "importlib.import_module",
    "importlib.util",
    "importlib.machinery",
    "runpy",
}


class UntraceableImport(ImportError):
    """An import of which nobody can say, without running it, which file it reads."""


@cache
def code_of(script: str, root: Path, modules: tuple[str, ...] = ()) -> list[str]:
    """A script and every module of ours that it imports, directly or not; paths relative to `root`.

    Imports for type checkers only (`if TYPE_CHECKING:`) do not count: nothing runs them.

    Args:
        modules: dotted names of modules that the script imports by a name it is given.
    Raises:
        UntraceableImport: an import that no file of ours answers, or that is made up at run time.
    """
    pending = [SCRIPTS / f"{script}.py", *(_file_of(name.split("."), root) for name in modules)]
    found: set[Path] = set()
    while pending:
        path = pending.pop()
        if path not in found:
            found.add(path)
            pending += imported_files(path, root, dynamic=bool(modules))
    return [str(path) for path in sorted(found)]


@cache
def imported_files(path: Path, root: Path, *, dynamic: bool = False) -> list[Path]:
    """The files of ours that one file imports; dynamic: imports by a name made up at run time, the
    file of which the caller knows, are fine (raises as `code_of`)."""
    files: list[Path] = []
    for node in _running_nodes(ast.parse((root / path).read_text(encoding="utf-8"))):
        where = f"{path}:{getattr(node, 'lineno', '?')}"
        if not dynamic and _is_dynamic(node):
            raise UntraceableImport(f"{where}: imports by a name made up at run time")
        if isinstance(node, ast.Import):
            for name in node.names:
                files += _of_names([*name.name.split(".")], [None], root, where)
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, path)
            files += _of_names(base, [name.name for name in node.names], root, where)
    return files


def _running_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those under `if TYPE_CHECKING:`."""
    pending = [tree]
    while pending:
        node = pending.pop()
        yield node
        if isinstance(node, ast.If) and ast.unparse(node.test) in (
            "TYPE_CHECKING",
            "typing.TYPE_CHECKING",
        ):
            pending += node.orelse
        else:
            pending += ast.iter_child_nodes(node)


def _is_dynamic(node: ast.AST) -> bool:
    """Whether this is, or brings in, something that imports or runs files by name."""
    if isinstance(node, ast.Import):
        return any(name.name in MACHINERY for name in node.names)
    if isinstance(node, ast.ImportFrom):
        named = {f"{node.module}.{name.name}" for name in node.names}
        return not node.level and bool({node.module, *named} & (MACHINERY - {"importlib"}))
    return isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("__import__", "exec")


def _base(node: ast.ImportFrom, path: Path) -> list[str]:
    """The dotted name, in parts, that `from … import` names, made absolute."""
    named = node.module.split(".") if node.module else []
    if not node.level:
        return named
    package = list(path.relative_to(SOURCES).parent.parts)
    return package[: len(package) - node.level + 1] + named


def _of_names(
    base: list[str], names: Iterable[str | None], root: Path, where: str
) -> Iterator[Path]:
    """The files behind `import base` (a name of None) and `from base import name`."""
    place = _place(base, root)
    if place is None:  # somebody else's library
        return
    for name in names:
        as_module = None if name is None else place / name
        if (root / place.with_suffix(".py")).is_file():
            yield place.with_suffix(".py")
        elif as_module and (root / as_module.with_suffix(".py")).is_file():
            yield as_module.with_suffix(".py")
        else:
            asked = ".".join(base) + (f", name {name}" if name else "")
            raise UntraceableImport(
                f"{where}: {asked}: is no module of ours; import from the module that defines it"
            )


def _place(base: list[str], root: Path) -> Path | None:
    """Where a dotted name lies without its ending; None if it is not one of ours."""
    if base[0] == PACKAGE:
        return SOURCES.joinpath(*base)
    if base[0] == SCRIPTS.name:
        return SOURCES.joinpath(*base)
    first = root / SCRIPTS / base[0]
    if first.is_dir() or first.with_suffix(".py").is_file():
        return SCRIPTS.joinpath(*base)
    return None


def _file_of(name: list[str], root: Path) -> Path:
    path = SOURCES.joinpath(*name).with_suffix(".py")
    if not (root / path).is_file():
        raise UntraceableImport(f"{'.'.join(name)}: is no module of ours")
    return path
