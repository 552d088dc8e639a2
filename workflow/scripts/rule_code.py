"""What a rule's code consists of: its script and the library modules that it imports."""

import ast
from functools import cache
from pathlib import Path

SCRIPTS, LIBRARY = Path("workflow/scripts"), Path("workflow/selfrepair")


@cache
def code_of(script: str, root: Path) -> list[str]:
    """A script and every library module that it imports, directly or not, relative to `root`.

    A rule lists them as inputs, so editing a module re-runs its rules and no others. The package's
    __init__ imports on demand and decides nothing, so it is left out.
    """
    pending, found = [SCRIPTS / f"{script}.py"], []
    while pending:
        path = pending.pop()
        if path in found:
            continue
        found.append(path)
        for node in ast.walk(ast.parse((root / path).read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or not node.module:
                continue
            name = node.module.removeprefix("selfrepair.")
            if node.level == 1 or name != node.module:
                pending.append(LIBRARY / f"{name}.py")
            elif (root / SCRIPTS / f"{name}.py").exists():
                pending.append(SCRIPTS / f"{name}.py")
    return [str(path) for path in sorted(found)]
