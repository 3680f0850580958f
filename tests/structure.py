"""Count what the plan of the code promises: names at the root, circles of imports, lines. `python tests/structure.py`.

Imports are read from the source, also those inside functions and under TYPE_CHECKING; nothing is executed.
"""

import ast
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1] / "cloudml_tf"
PACKAGE = "cloudml_tf"


def modules() -> dict[str, Path]:
    """Dotted name -> file of every module of the package."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join((PACKAGE, *path.relative_to(ROOT).with_suffix("").parts))
        found[name.removesuffix(".__init__")] = path
    return found


def imported(path: Path) -> set[str]:
    """Dotted names of all that a file imports, ours and others'; of `from a import b`, `a.b`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def imports() -> dict[str, set[str]]:
    """Module -> modules of the package that it imports."""
    known = modules()
    graph: dict[str, set[str]] = {}
    for name, path in known.items():
        graph[name] = set()
        for full in imported(path):
            target = full if full in known else full.rpartition(".")[0]
            if target in known and target not in (name, PACKAGE):
                graph[name].add(target)
    return graph


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import one another, by Tarjan's algorithm."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in graph.get(node, ()):
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            group = [stack.pop()]
            while group[-1] != node:
                group.append(stack.pop())
            if len(group) > 1:
                found.append(sorted(group))

    for node in graph:
        if node not in index:
            visit(node)
    return found


def names_at_the_root() -> list[str]:
    """Files and folders in the package, but for `__init__.py`, `__main__.py` and `py.typed`."""
    own = {"__init__.py", "__main__.py", "py.typed", "__pycache__"}
    return sorted(path.name for path in ROOT.iterdir() if path.name not in own)


def branches_on_the_target() -> list[str]:
    """Modules outside `config` that read the target's coverage, or test the class of the data in its stead."""
    found = []
    for name, path in modules().items():
        if name.startswith(f"{PACKAGE}.config"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            reads = isinstance(node, ast.Attribute) and node.attr in ("coverage", "is_swath")
            call = node if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance" else None
            classes = ast.unparse(call.args[1]) if call is not None else ""
            if reads or any(word in classes for word in ("Samples", "Scenes", "Prepared", "TrackLabels")):
                found.append(name)
                break
    return found


def code_lines(path: Path) -> int:
    """Lines of code, without blanks, comments and docstrings."""
    text = path.read_text()
    quiet = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    rows = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in quiet:
            rows |= set(range(token.start[0], token.end[0] + 1))
    for node in _with_docstrings(ast.parse(text)):
        rows -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(rows)


def _with_docstrings(tree: ast.Module) -> Iterator[ast.Expr]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            first = node.body[0]
            if isinstance(first, ast.Expr):
                yield first


if __name__ == "__main__":
    shown = names_at_the_root()
    print(f"files and folders at the root: {len(shown)} ({', '.join(shown)})")
    print(f"circles of imports: {len(circles(imports()))}")
    print(f"modules outside config that ask for the target: {branches_on_the_target()}")
    print(f"lines of code: {sum(code_lines(path) for path in modules().values()):,}")
