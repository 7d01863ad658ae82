"""The house keeps itself: rooms, sizes, and imports that run one way."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "vae_cli"
FILES = sorted(PACKAGE.rglob("*.py"))
TOP = {"__init__", "__main__", "cli", "console"}

# a room imports only rooms that stand before it, and never one of the pairs below
ORDER = ["console", "config", "models", "data", "runs", "vae", "training", "analysis", "sweeps"]
ORDER += ["cli", "__init__", "__main__"]
APART = {("data", "models"), ("runs", "models"), ("runs", "data"), ("vae", "data"), ("vae", "runs")}

# whoever raises a number says why in the commit
LINES = {
    "config": 1950,
    "models": 385,
    "vae": 1945,
    "data": 1275,
    "runs": 1035,
    "training": 1510,
    "analysis": 2105,
    "sweeps": 1765,
}
PACKAGE_LINES, FILE_LINES, ROOM_FILES, LINE_LENGTH = 12390, 260, 10, 100

# other projects' private parts; torch's fused optimisers and oneDNN have no public name
PRIVATE = ("hydra._internal", "omegaconf._utils", "torch._C")


def name_of(path: Path) -> str:
    """The module's name: vae_cli/data/mnist.py -> vae_cli.data.mnist."""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)


def room(module: str) -> str:
    """Where a module of ours lives: vae_cli.data.mnist -> data."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports(path: Path) -> list[str]:
    """The modules that a file imports, anywhere in it."""
    names: list[str] = []
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):  # what only a type checker reads is no import
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from vae_cli import x` names a module of ours in its second half
            own = node.module == "vae_cli"
            names += [f"vae_cli.{alias.name}" if own else node.module for alias in node.names]
    return names


def count(path: Path) -> int:
    return len(path.read_text().splitlines())


def test_the_top_has_four_files_and_eight_rooms() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == TOP
    assert {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()} == set(
        LINES
    )


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_run_one_way(path: Path) -> None:
    importer = room(name_of(path))
    for module in imports(path):
        assert not module.startswith(PRIVATE), module
        if module.startswith("vae_cli.") and importer not in ("__init__", "__main__"):
            imported = room(module)
            assert ORDER.index(imported) <= ORDER.index(importer), module
            assert (importer, imported) not in APART, module


def test_no_circles() -> None:
    arrows = {
        name_of(path): {m for m in imports(path) if m.startswith("vae_cli.") and m != name_of(path)}
        for path in FILES
        if path.stem != "__init__"
    }
    while leaves := [name for name, after in arrows.items() if not after & arrows.keys()]:
        for name in leaves:
            del arrows[name]
    assert not arrows, sorted(arrows)


def test_sizes() -> None:
    assert sum(map(count, FILES)) <= PACKAGE_LINES
    for path in FILES:
        assert count(path) <= FILE_LINES, path
        assert all(len(line) <= LINE_LENGTH for line in path.read_text().splitlines()), path
    for name, limit in LINES.items():
        files = sorted((PACKAGE / name).glob("*.py"))
        assert len(files) - 1 <= ROOM_FILES, name  # besides __init__.py, which is empty
        assert sum(map(count, files)) <= limit, name


def test_help_and_mistakes_are_answered_without_torch() -> None:
    modules = [name_of(path) for path in (PACKAGE / "config").glob("*.py")]
    modules += ["vae_cli.cli", "vae_cli.console", "vae_cli.analysis.settings"]
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
