"""Edits of the source, as DVC sees them: what changes no code runs nothing, what does runs who imports it."""

import ast
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kidney_ssl.code_version import code_version
from kidney_ssl.yamlfile import read_yaml
from tests.project_copy import Project, running

SHARED = (
    "kidney_ssl.data.arrays",
    "kidney_ssl.engine.batches",
    "kidney_ssl.engine.loop",
    "kidney_ssl.metrics.classification",
    "kidney_ssl.models.resnet",
)
OPERATORS = {ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "+"), ast.Lt: ("<", "<="), ast.Gt: (">", ">=")}


@pytest.fixture(autouse=True)
def restored(smoke: Project) -> Iterator[None]:
    """The sources, versions and lock as they were."""
    kept = {path: path.read_bytes() for path in [*modules(smoke), smoke.folder / "dvc.lock"]}
    yield
    for path in set(modules(smoke)) - set(kept):
        path.unlink()
    for path, content in kept.items():
        if path.read_bytes() != content:
            path.write_bytes(content)
    smoke.succeed("python", "-m", "stages.code")


def modules(project: Project) -> list[Path]:
    return sorted(path for folder in ("src", "stages") for path in (project.folder / folder).rglob("*.py"))


def remarked(text: str, chance: random.Random) -> str:
    """Put comments and blank lines before statements drawn from a module, and a docstring into a function."""
    lines = text.splitlines(keepends=True)
    statements = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.stmt)]
    for row in sorted({node.lineno for node in chance.sample(statements, min(3, len(statements)))}, reverse=True):
        lines.insert(row - 1, f"   # {chance.random()}\n\n")
    return f'"""Other words. {chance.random()}"""\n' + "".join(lines) + "\n\n# the end\n"


def other_operator(text: str, chance: random.Random) -> str | None:
    """Another operator somewhere in the body of a function; None where there is none."""
    lines = text.splitlines(keepends=True)
    places = []
    for function in ast.walk(ast.parse(text)):
        if not isinstance(function, ast.FunctionDef):
            continue
        for node in (inner for statement in function.body for inner in ast.walk(statement)):
            operands = []
            if isinstance(node, ast.BinOp):
                operands = [(node.op, node.left, node.right)]
            elif isinstance(node, ast.Compare):
                operands = [(node.ops[0], node.left, node.comparators[0])]
            for operator, left, right in operands:
                old, new = OPERATORS.get(type(operator), ("", ""))
                between = slice(left.end_col_offset, right.col_offset)
                row = lines[left.lineno - 1].encode()
                if old and left.end_lineno == right.lineno == left.lineno and row[between].decode().strip() == old:
                    places.append((left.lineno - 1, between, new))
    if not places:
        return None
    row, between, new = chance.choice(places)
    content = lines[row].encode()
    lines[row] = (content[: between.start] + f" {new} ".encode() + content[between.stop :]).decode()
    return "".join(lines)


def versions(project: Project) -> dict[str, dict[str, str]]:
    """Modules of each version of the code, by its path."""
    files = sorted((project.folder / "code").rglob("*.json"))
    return {path.relative_to(project.folder).as_posix(): json.loads(path.read_text()) for path in files}


def stale(project: Project) -> set[str]:
    """Stages that `dvc status` finds changed, but for the stage of the versions itself."""
    return set(json.loads(project.succeed("dvc", "status", "--json"))) - {"code"}


def depending(project: Project, files: set[str]) -> set[str]:
    """Stages that are locked with one of some versions."""
    stages = read_yaml((project.folder / "dvc.lock").read_text())["stages"]
    return {name for name, stage in stages.items() if files & {dep["path"] for dep in stage.get("deps", ())}}


@contextmanager
def edited(path: Path, text: str) -> Iterator[None]:
    before = path.read_bytes()
    path.write_text(text)
    try:
        yield
    finally:
        path.write_bytes(before)


def test_comments_docstrings_and_blank_lines_in_every_module_run_the_stage_of_versions_alone(
    smoke: Project,
) -> None:
    chance, before = random.Random(13), versions(smoke)
    for path in modules(smoke):
        path.write_text(remarked(path.read_text(), chance))
    assert running(smoke.succeed("dvc", "repro")) == ["code"]
    assert versions(smoke) == before


def test_an_operator_marks_exactly_the_stages_whose_version_lists_the_module(smoke: Project) -> None:
    chance, before = random.Random(13), versions(smoke)
    folders = {"kidney_ssl": smoke.folder / "src/kidney_ssl", "stages": smoke.folder / "stages"}
    # Not what writes the versions, which has to work.
    chosen = {name for one in before.values() for name in one} - set(
        code_version("stages.code", "stages.run", packages=folders)
    )
    shared = chance.sample(SHARED, 2)
    tried = 0
    for module in shared + chance.sample(sorted(chosen - set(SHARED)), 12):
        package, *rest = module.split(".")
        path = folders[package].joinpath(*rest).with_suffix(".py")
        text = other_operator(path.read_text(), chance) if path.exists() else None
        if text is None or tried == 5:
            continue
        tried += 1
        with edited(path, text):
            smoke.succeed("python", "-m", "stages.code")
            listing = {file for file, content in before.items() if module in content}
            assert {file for file, content in versions(smoke).items() if content != before[file]} == listing, module
            assert stale(smoke) == depending(smoke, listing), module
    assert tried == 5


def test_a_new_method_and_a_new_augmentation_change_nothing_old(smoke: Project) -> None:
    before = versions(smoke)
    for kind, old in (("methods", "rotation"), ("augmentations", "none")):
        file = smoke.folder / f"src/kidney_ssl/{kind}/{old}.py"
        (file.with_stem("newcomer")).write_text(file.read_text())
    smoke.succeed("python", "-m", "stages.code")
    found = versions(smoke)
    assert set(found) - set(before) == {"code/pretrain/newcomer.json", "code/augmentations/newcomer.json"}
    assert {file: found[file] for file in before} == before
    assert stale(smoke) == set()
