"""What the documents promise is true: commands parse, the example runs, the tree is complete.

Code blocks that are checked stand below an HTML comment that names them, such as
``<!-- tree -->``, which readers do not see.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import runpy
import shlex
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from mimic_core.__main__ import app
from tests.core import forked
from tests.places import ROOT

README = ROOT / "README.md"
DOCUMENTS = [
    README,
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *(ROOT / folder / "README.md" for folder in ("bench", "data_samples")),
]
CALLS = ("python -m mimic_core", "mimicscope")

# Words that the glossary gives up in favour of others. Those that also have a plain meaning
# ("index", "projection", "bad") are left to the reader of a change.
UNWANTED = {
    "chunk": "shard",
    "chunks": "shards",
    "committee": "ensemble",
    "corpus": "pool",
    "data point": "sample",
    "datapoint": "sample",
    "datapoints": "samples",
    "experiment": "run",
    "item": "sample",
    "items": "samples",
    "quality score": "mimic score",
    "student": "model",
    "tau": "temperature",
    "teacher": "reference model",
    "top_p": "retention rate",
}

needs_readme = pytest.mark.skipif(not README.exists(), reason="there is no README yet")


def marked_block(name: str) -> str:
    """The code block below the marker ``name`` in the README."""
    found = re.search(
        rf"<!-- {re.escape(name)} -->\s*```\w*\n(.*?)```", README.read_text("utf-8"), re.DOTALL
    )
    assert found, f"README.md has no code block below <!-- {name} -->"
    return found[1]


def code_blocks(text: str) -> Iterator[str]:
    for block in re.finditer(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        yield block[1].replace("\\\n", " ")


def documented_calls() -> list[tuple[str, str]]:
    """(document, arguments) of every call of the command line in a code block."""
    calls = []
    for document in DOCUMENTS:
        if not document.exists():
            continue
        for block in code_blocks(document.read_text("utf-8")):
            for command in re.split(r"\n|&&|\|", block):
                for call in CALLS:
                    before, called, arguments = command.partition(call + " ")
                    if called and re.fullmatch(r"[\s$]*([\w./]*/)?", before):
                        calls.append((document.name, arguments.strip()))
    return calls


def parse(arguments: list[str]) -> None:
    """Parse ``arguments`` as the command line does, without running anything."""
    command: Any = typer.main.get_command(app)
    name = "mimicscope"
    while hasattr(command, "commands") and not arguments[0].startswith("-"):
        name, *arguments = arguments
        assert name in command.commands, f"there is no command {name}"
        command = command.commands[name]
    try:
        command.make_context(name, list(arguments))
    except typer.Exit:
        assert "--help" in arguments


@pytest.mark.parametrize(("document", "arguments"), documented_calls())
def test_documented_commands_parse(document: str, arguments: str) -> None:
    parse(shlex.split(arguments, comments=True))


BENCHES = sorted(p for p in (ROOT / "bench").glob("*.py") if "__main__" in p.read_text("utf-8"))


@pytest.mark.parametrize("script", BENCHES, ids=lambda path: path.stem)
def test_benchmarks_start_as_documented(script: Path, tmp_path: Path) -> None:
    """From any folder, without the packages being installed."""
    process = forked.start(_run_elsewhere, script, tmp_path, log=tmp_path / "log")
    process.join(300)
    said = (tmp_path / "log").read_text("utf-8")
    assert process.exitcode == 0, said
    assert "--json" in said
    assert f"{script.name}`" in (ROOT / "bench" / "README.md").read_text("utf-8")


def _run_elsewhere(script: Path, folder: Path) -> None:
    """``python script --help`` in a folder, by a process that has loaded none of our packages."""
    os.chdir(folder)
    for name in [name for name in sys.modules if name.split(".")[0] in {"mimic_core", "app"}]:
        del sys.modules[name]
    sys.path[:] = [str(script.parent), *(at for at in sys.path if at not in {"", str(ROOT)})]
    sys.argv = [str(script), "--help"]
    warnings.simplefilter("ignore")
    runpy.run_path(str(script), run_name="__main__")


def test_the_parser_of_documented_commands_finds_mistakes() -> None:
    parse(["runs", "show", "a-run"])
    parse(["score", "--help"])
    with pytest.raises(AssertionError, match="no command nonsense"):
        parse(["nonsense"])
    with pytest.raises(Exception, match="No such option: --nonsense"):
        parse(["runs", "show", "a-run", "--nonsense"])
    with pytest.raises(Exception, match="Missing parameter: run"):
        parse(["runs", "show"])


def documented_pools() -> list[tuple[str, str, str]]:
    """Layout, file and function of each row of the README's table of pools."""
    found = re.search(r"<!-- pools -->\n((?:\|.*\n)+)", README.read_text("utf-8"))
    assert found, "README.md has no table below <!-- pools -->"
    rows = [[cell.strip() for cell in line.split("|")] for line in found[1].splitlines()[2:]]
    tests = [re.fullmatch(r"`(\w+\.py): (\w+)`", row[3]) for row in rows]
    assert all(tests), [row[1] for row, test in zip(rows, tests, strict=True) if not test]
    return [(row[1], test[1], test[2]) for row, test in zip(rows, tests, strict=True) if test]


@needs_readme
@pytest.mark.parametrize(("layout", "file", "function"), documented_pools())
def test_every_layout_in_the_readme_names_its_test(layout: str, file: str, function: str) -> None:
    tree = ast.parse((ROOT / "tests" / "core" / "sources" / file).read_text("utf-8"))
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, (
        layout
    )


@needs_readme
def test_every_command_is_documented() -> None:
    told = {arguments.split()[0] for _, arguments in documented_calls()}
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert {name for name, command in commands.items() if not command.hidden} <= told


@needs_readme
def test_the_readme_shows_how_to_open_the_app_and_how_to_test() -> None:
    assert marked_block("open-command").strip().endswith("python -m mimic_core app")
    command = marked_block("test-command").strip()
    assert command.endswith('python -m pytest -n 2 --dist worksteal -m "not slow"')
    # The server runs what the README leaves out.
    assert "-m pytest -n 2 --dist worksteal -m slow " in (ROOT / ".ci" / "run").read_text()


@needs_readme
def test_the_tree_in_the_readme_is_complete() -> None:
    names = set(re.findall(r"[\w.-]+", marked_block("tree")))
    passed_over = {"__pycache__", "runs", "build", "dist"}
    tops = {p.name for p in ROOT.iterdir() if not p.name.startswith(".")} - passed_over
    inside = {
        path.name
        for package in ("mimic_core", "app")
        for path in (ROOT / package).iterdir()
        if (path / "__init__.py").exists()
    }
    assert (tops | inside) - names - {"py.typed"} == set()


@needs_readme
def test_the_training_loop_in_the_readme_trains() -> None:
    """The example may use ``model``, ``reference``, ``layers``, ``batches`` and ``optimizer``."""
    import torch

    from tests.core.tiny import IMAGE_MLP, clip_vit

    model = clip_vit(0)
    before = model.get_parameter(IMAGE_MLP).detach().clone()
    generator = torch.Generator().manual_seed(0)
    batches = [
        (
            torch.randn(4, 3, 16, 16, generator=generator),
            torch.randint(1, 64, (4, 8), generator=generator),
        )
        for _ in range(2)
    ]
    names: dict[str, Any] = {
        "model": model,
        "reference": clip_vit(1),
        "layers": [IMAGE_MLP],
        "batches": batches,
        "images": batches[0][0],
        "texts": batches[0][1],
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
    }
    example = compile(marked_block("example: training-loop"), str(README), "exec")
    exec(example, names)  # noqa: S102 - the README is ours
    assert names["scores"].shape == (4,)
    assert names["weights"].sum().item() == pytest.approx(1, abs=1e-5)
    assert not torch.equal(model.get_parameter(IMAGE_MLP), before)


@needs_readme
def test_the_default_variant_in_the_readme_weighs_the_mimic_layers_alone() -> None:
    import torch

    from mimic_core.mimic.losses import clip_losses
    from tests.core.tiny import IMAGE_MLP, clip_vit

    model = clip_vit(0).requires_grad_(True)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, 16, 16, generator=generator)
    texts = torch.randint(1, 64, (4, 8), generator=generator)
    weights = torch.tensor([0.7, 0.1, 0.1, 0.1])
    parameters = dict(model.named_parameters())
    losses = clip_losses(*model(images, texts))
    means, weighted = (
        torch.autograd.grad(total, list(parameters.values()), retain_graph=True)
        for total in (losses.mean(), (weights * losses).sum())
    )
    names = {"torch": torch, "model": model, "layers": [IMAGE_MLP], "losses": losses}
    example = compile(marked_block("example: default-variant"), str(README), "exec")
    exec(example, names | {"weights": weights})  # noqa: S102 - the README is ours
    for (name, parameter), mean, other in zip(parameters.items(), means, weighted, strict=True):
        torch.testing.assert_close(parameter.grad, other if name == IMAGE_MLP else mean)


@needs_readme
def test_the_recipe_in_the_readme_filters(tmp_path: Path) -> None:
    from mimic_core.filters.recipe import Recipe, apply
    from mimic_core.runs.table import run_table
    from tests.fakes import fake_run

    recipe = Recipe.from_yaml(marked_block("recipe"))
    table = run_table(fake_run(tmp_path, n=60))
    selection = apply(recipe, table)
    assert 0 < selection.kept < selection.total
    assert set(selection.drops) == set(recipe.names)


@needs_readme
def test_the_readme_names_a_test_for_every_format_of_exports() -> None:
    from mimic_core.export.settings import FORMATS

    text = README.read_text("utf-8")
    table = text[text.index("| `--format` |") :].partition("\n\n")[0]
    told: list[str] = []
    for row in table.splitlines()[2:]:
        formats, _, tests = row.strip("| ").split(" | ")
        told += re.findall(r"`(\w+)`", formats)
        named = re.findall(r"`(test_\w+\.py)`", tests)
        assert named
        for name in named:
            source = (ROOT / "tests" / "core" / "export" / name).read_text("utf-8")
            by_name = any(f'"{one}"' in source for one in re.findall(r"`(\w+)`", formats))
            assert by_name, f"{name} says nothing of {formats}"
    assert sorted(told) == sorted(FORMATS)


def screen_texts(path: Path) -> Iterator[tuple[int, str]]:
    """Sentences in the code: strings with a space that are no docstrings."""
    tree = ast.parse(path.read_text("utf-8"))
    docstrings = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and id(node) not in docstrings and " " in node.value.strip():
            yield node.lineno, node.value


def unwanted_words(text: str) -> list[str]:
    lower = text.lower()
    return [
        f"{word!r}: {use}"
        for word, use in UNWANTED.items()
        if re.search(rf"(?<![\w-]){word}(?![\w-])", lower)
    ]


def test_the_screen_and_the_errors_speak_the_words_of_the_glossary() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {word}"
        for package in ("app", "mimic_core")
        for path in sorted((ROOT / package).rglob("*.py"))
        for line, text in screen_texts(path)
        for word in unwanted_words(text)
    ]
    assert found == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_documents_speak_the_words_of_the_glossary(document: Path) -> None:
    if not document.exists():
        pytest.skip("not written yet")
    lines = document.read_text("utf-8").splitlines()
    prose = [line for line in lines if not line.startswith("|")]  # the glossary is a table
    found = [f"{n}: {w}" for n, line in enumerate(prose, 1) for w in unwanted_words(line)]
    assert found == []


def test_the_search_for_unwanted_words_finds_them() -> None:
    assert unwanted_words("Items of the Corpus") == ["'corpus': pool", "'items': samples"]
    assert unwanted_words("a shard of the pool, itemised") == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_no_place_is_left_to_be_filled_in(document: Path) -> None:
    assert re.findall(r"^[A-Z][A-Z_]{3,}$", document.read_text("utf-8"), re.MULTILINE) == []


def drawing_module() -> Any:
    """The script of ``docs/``, which stands in no package."""
    spec = importlib.util.spec_from_file_location("draw_rooms", ROOT / "docs" / "draw_rooms.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_of_the_rooms_and_the_list_of_files_are_of_today() -> None:
    """``python docs/draw_rooms.py`` makes both again."""
    drawn = drawing_module()
    assert drawn.PICTURE.read_text("utf-8") == drawn.drawing()
    document = drawn.ARCHITECTURE.read_text("utf-8")
    assert document == drawn.with_file_list(document)


def test_the_ways_through_the_house_name_what_is_there() -> None:
    document = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    steps = re.findall(r"`((?:mimic_core|app)/[\w/]+\.py): (\w+)`", document)
    assert len(steps) > 20
    for file, name in steps:
        tree = ast.parse((ROOT / file).read_text("utf-8"))
        defined = {node.name for node in tree.body if hasattr(node, "name")}
        assert name in defined, f"{file} has no {name}"


def test_the_files_to_touch_are_there() -> None:
    document = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    named = re.findall(r"`((?:mimic_core|app|bench|tests|docs)/[\w/.]*)`", document)
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == ["app/components/PAGE/"]
