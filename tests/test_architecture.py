"""Who may import whom, and how long things may get: the rules of the design, enforced.

Imports are read from the syntax tree, so nothing is executed and no import can hide in a branch.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.places import ROOT

PACKAGES = ("mimic_core", "app")
MODULE_LINES, FUNCTION_LINES, VIEW_LINES = 450, 60, 80

# The rooms of mimic_core from top to bottom: a room imports only from rooms below it.
ROOMS = (
    "cli",
    "jobs",
    "proofs",
    "scoring",
    "features",
    "export",
    "filters",
    "mimic",
    "models",
    "sources",
    "runs",
    "stats",
    "base",
)
# Torch ends where folders end: these rooms compute with it, and three files of ``proofs``. Nothing
# else imports them but lazily, from the rooms that start work and from the live tuning of the app.
TORCH_ROOMS = ("features", "mimic", "models", "scoring")
TORCH_FILES = tuple(f"mimic_core.proofs.{name}" for name in ("prove", "tasks", "trainings"))
CALLERS_OF_TORCH = ("mimic_core.cli", "mimic_core.jobs", "app.cache.tables")
# What is stored knows nobody who makes it, and figures know nothing but arrays.
ON_BASE_ALONE = ("runs", "stats")
TORCH_PACKAGES = {"torch", "torchvision", "open_clip", "timm"}
# Modules of app/ that draw or keep; all others there are plain functions on frames and figures.
SCREEN = ("app.main", "app.cache", "app.components", "app.serve", "app.state.session", "app.views")


@dataclass(frozen=True)
class Import:
    """One imported module; ``lazy`` when it stands inside a function."""

    module: str
    lazy: bool
    line: int


def module_files() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


FILES = module_files()


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@cache
def imports(module: str) -> tuple[Import, ...]:
    return tuple(_imports(tree_of(FILES[module]), lazy=False))


def _imports(node: ast.AST, *, lazy: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, lazy, child.lineno)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "relative imports are not used"
            assert child.module is not None
            for alias in child.names:
                full = f"{child.module}.{alias.name}"
                yield Import(full if full in FILES else child.module, lazy, child.lineno)
        inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from _imports(child, lazy=lazy or inside)


def top_package(module: str) -> str:
    return module.split(".", maxsplit=1)[0]


def within(module: str, places: Iterable[str]) -> bool:
    """Whether ``module`` is one of ``places``, or lies in one of them."""
    return any(module == place or module.startswith(f"{place}.") for place in places)


def room_of(module: str) -> str | None:
    """The room of mimic_core that a module stands in; None for all else."""
    parts = module.split(".")
    return parts[1] if parts[0] == "mimic_core" and len(parts) > 1 and parts[1] in ROOMS else None


def is_torch(module: str) -> bool:
    own = room_of(module) in TORCH_ROOMS or module in TORCH_FILES
    return own or top_package(module) in TORCH_PACKAGES


def offences(modules: Iterator[str] | list[str], forbidden: object) -> list[str]:
    assert callable(forbidden)
    return [
        f"{module}:{found.line} imports {found.module}"
        for module in modules
        for found in imports(module)
        if forbidden(module, found)
    ]


CORE = [name for name in FILES if top_package(name) == "mimic_core"]
APP = [name for name in FILES if top_package(name) == "app"]


def test_the_core_knows_nothing_of_the_screen() -> None:
    screen = {"streamlit", "plotly", "app"}
    assert offences(CORE, lambda _, found: top_package(found.module) in screen) == []


def test_every_module_of_the_core_stands_in_a_room() -> None:
    """And every room exists: the list above is the house."""
    outside = [name for name in CORE if room_of(name) is None]
    assert outside == ["mimic_core", "mimic_core.__main__"]
    assert {room_of(name) for name in CORE} - {None} == set(ROOMS)


def test_a_room_imports_only_from_rooms_below_it() -> None:
    def forbidden(module: str, found: Import) -> bool:
        here, there = room_of(module), room_of(found.module)
        if here is None or there is None or here == there:
            return False
        return ROOMS.index(there) < ROOMS.index(here)

    assert offences(CORE, forbidden) == []


def test_what_is_stored_and_what_is_counted_rest_on_the_base_alone() -> None:
    def forbidden(module: str, found: Import) -> bool:
        return room_of(found.module) not in {None, "base", room_of(module)}

    resting = [name for name in CORE if room_of(name) in ON_BASE_ALONE]
    assert offences(resting, forbidden) == []


def test_rooms_use_each_other_through_the_modules_that_a_room_lists() -> None:
    def forbidden(module: str, found: Import) -> bool:
        there = room_of(found.module)
        if there is None or there == room_of(module):
            return False
        parts = found.module.split(".")
        steps = zip(range(2, len(parts)), parts[2:], strict=True)
        return not all(name in listed(".".join(parts[:end])) for end, name in steps)

    assert offences([*CORE, *APP], forbidden) == []


@pytest.mark.parametrize("room", [name for name in FILES if FILES[name].name == "__init__.py"])
def test_what_a_package_lists_exists_and_it_holds_no_logic(room: str) -> None:
    if room == "mimic_core":
        return  # it hands on the public names, when they are first asked for
    beyond = [
        node
        for node in tree_of(FILES[room]).body
        if not isinstance(node, ast.Expr) and not _is_list_of_names(node)
    ]
    assert beyond == []
    assert [name for name in listed(room) if f"{room}.{name}" not in FILES] == []


def _is_list_of_names(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Assign)
        and [ast.unparse(target) for target in node.targets] == ["__all__"]
        and isinstance(node.value, ast.List)
    )


def listed(package: str) -> list[str]:
    """The modules that a package offers to other rooms: its ``__all__``."""
    for node in tree_of(FILES[package]).body:
        if _is_list_of_names(node):
            return list(ast.literal_eval(node.value))  # type: ignore[attr-defined]
    return []


def test_every_public_name_leads_somewhere() -> None:
    import mimic_core

    assert "score_pool" in mimic_core.__all__
    for name in mimic_core.__all__:
        assert getattr(mimic_core, name) is not None


def test_torch_is_imported_on_its_side_of_the_wall_alone() -> None:
    """Elsewhere only lazily, by what starts work and by the live tuning of the app."""

    def forbidden(module: str, found: Import) -> bool:
        allowed = found.lazy and within(module, CALLERS_OF_TORCH)
        return is_torch(found.module) and not is_torch(module) and not allowed

    assert offences([*CORE, *APP], forbidden) == []


def test_importing_what_reads_runs_loads_no_torch() -> None:
    light = [name for name in CORE if not is_torch(name) and not name.endswith("__main__")]
    script = f"""
import importlib, sys
import mimic_core
assert not [name for name in sys.modules if name.startswith("mimic_core.")], "not lazy"
for name in {light!r}:
    importlib.import_module(name)
print(sorted({TORCH_PACKAGES!r} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_settings_need_pydantic_alone() -> None:
    """The command line and the app take choices, bounds and help texts from the settings."""
    script = """
import sys
import mimic_core.base.config
print(sorted({"numpy", "polars", "pyarrow", "torch", "streamlit", "typer"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_modules_do_not_import_each_other_in_circles() -> None:
    graph = {
        name: {i.module for i in imports(name) if not i.lazy and i.module in FILES}
        for name in FILES
    }
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"circle: {' -> '.join([*path, name])}"
        if name not in done:
            for other in sorted(graph[name]):
                visit(other, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_figures_and_other_plain_modules_of_the_app_do_without_streamlit() -> None:
    plain = [name for name in APP if not within(name, SCREEN)]
    assert "app.drawing.figures" in plain
    assert offences(plain, lambda _, found: top_package(found.module) == "streamlit") == []


def test_views_stand_on_top_and_know_no_other_view() -> None:
    def forbidden(module: str, found: Import) -> bool:
        if found.module.startswith("app.views"):
            return module != "app.main"
        return found.module == "app.main"

    assert offences(APP, forbidden) == []


def test_components_and_views_leave_frames_and_files_to_the_modules_below() -> None:
    heavy = {"polars", "numpy", "plotly", "sqlite3"}
    views = [name for name in APP if name.startswith("app.views")]
    assert offences(views, lambda _, found: top_package(found.module) in heavy) == []


def attributes_of_streamlit(module: str) -> set[str]:
    return {
        node.attr
        for node in ast.walk(tree_of(FILES[module]))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in {"st", "streamlit"}
    }


def test_only_one_module_touches_the_session_state() -> None:
    touching = {name for name in APP if "session_state" in attributes_of_streamlit(name)}
    assert touching == {"app.state.session"}


def test_only_the_cache_modules_cache() -> None:
    caches = {"cache_data", "cache_resource"}
    caching = {name for name in APP if caches & attributes_of_streamlit(name)}
    assert caching
    assert {name for name in caching if not within(name, ["app.cache"])} == set()


def test_streamlit_is_imported_under_its_usual_name() -> None:
    """The two tests before look for ``st.``, so nothing may be imported from inside it."""
    for name in APP:
        for node in ast.walk(tree_of(FILES[name])):
            if isinstance(node, ast.ImportFrom):
                assert top_package(node.module or "") != "streamlit", f"{name}:{node.lineno}"
            if isinstance(node, ast.Import):
                aliases = {a.asname for a in node.names if a.name == "streamlit"}
                assert aliases <= {"st"}, f"{name}:{node.lineno}"


@pytest.mark.parametrize("module", FILES)
def test_modules_and_functions_stay_short(module: str) -> None:
    lines = len(FILES[module].read_text(encoding="utf-8").splitlines())
    limit = VIEW_LINES if module.startswith("app.views.") else MODULE_LINES
    assert lines <= limit, f"{lines} lines"
    too_long = [
        f"{node.name} at line {node.lineno}: {body_lines(node)} lines"
        for node in ast.walk(tree_of(FILES[module]))
        if isinstance(node, ast.FunctionDef) and body_lines(node) > FUNCTION_LINES
    ]
    assert too_long == []


def body_lines(function: ast.FunctionDef) -> int:
    """Lines of the body without the docstring."""
    body = function.body
    if ast.get_docstring(function) is not None:
        body = body[1:]
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("module", FILES)
def test_every_module_says_what_it_is_and_never_evaluates_annotations(module: str) -> None:
    assert ast.get_docstring(tree_of(FILES[module]))
    only_lists = FILES[module].name == "__init__.py" or module.startswith("app.views.")
    assert only_lists or "__future__" in {found.module for found in imports(module)}


def committed_texts() -> Iterator[tuple[Path, str]]:
    """Files that belong to the repository: no caches, environments, runs or hidden folders."""
    shown = {".ci", ".github", ".streamlit", ".gitignore"}
    passed_over = {"__pycache__", "runs", "build", "dist", "node_modules"}
    for top in sorted(ROOT.iterdir()):
        if (top.name.startswith(".") and top.name not in shown) or top.name in passed_over:
            continue
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            inner = path.relative_to(ROOT).parts
            if not path.is_file() or path.stat().st_size > 2_000_000 or "__pycache__" in inner:
                continue
            try:
                yield path, path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue  # an image or an array


def test_no_file_names_a_place_on_the_machine_where_it_was_made() -> None:
    places = [f"/{name}/" for name in ("work", "root", "home", "Users")]
    allowed = {"/home/you/"}  # how a document may name a folder of its reader
    found = []
    for path, text in committed_texts():
        for place in places:
            for line in text.splitlines():
                start = line.find(place)
                inside_a_word = start > 0 and (
                    line[start - 1].isalnum() or line[start - 1] in "._-"
                )
                if start >= 0 and not inside_a_word and not any(a in line for a in allowed):
                    found.append(f"{path.relative_to(ROOT)}: {line.strip()[:80]}")
    assert found == []
