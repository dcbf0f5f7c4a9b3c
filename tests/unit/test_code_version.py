"""Versions of code: what changes them, what does not, and that no module that is loaded is missing."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kidney_ssl.code_version import SOURCES, code_version, significant
from kidney_ssl.methods import METHODS

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "src").rglob("*.py"))

SOURCE = '''"""Doc."""

import base
from toy.shared import scale  # used below


def area(mask):
    """Pixels of a mask."""
    text = """kept

# no comment"""
    return scale * mask.sum() > 3, text
'''


@pytest.fixture
def toy(tmp_path):
    """A package of three modules, of which `area` imports `shared`."""
    folder = tmp_path / "toy"
    (folder / "data").mkdir(parents=True)
    files = {
        "__init__": '"""Toy."""\n',
        "area": SOURCE,
        "shared": "scale = 2\n",
        "other": "import toy.area\n",
        "lazy": "def one():\n    from . import shared\n    return shared\n",
        "typed": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import toy.shared\n",
        "run": "x = 1\nif __name__ == '__main__':\n    import toy.shared\n",
        "reads": "NAME = 'table.csv'\n",
    }
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    (folder / "data" / "table.csv").write_text("a\n1\n")
    return folder


def version(folder, *roots):
    return code_version(*(f"toy.{root}" for root in roots), packages={"toy": folder})


def test_a_module_counts_with_what_it_imports_and_with_its_packages(toy):
    assert set(version(toy, "area")) == {"toy", "toy.area", "toy.shared"}
    assert set(version(toy, "lazy")) == {"toy", "toy.lazy", "toy.shared"}
    assert set(version(toy, "other")) == {"toy", "toy.other", "toy.area", "toy.shared"}


def test_imports_for_type_checkers_and_of_a_run_module_do_not_count(toy):
    assert set(version(toy, "typed")) == {"toy", "toy.typed"}
    assert set(version(toy, "run")) == {"toy", "toy.run"}


def test_a_data_file_that_a_module_names_counts(toy):
    before = version(toy, "reads")
    (toy / "data" / "table.csv").write_text("a\n2\n")
    after = version(toy, "reads")
    assert set(before) == {"toy", "toy.reads", "toy.reads: data/table.csv"}
    assert {name for name in before if before[name] != after[name]} == {"toy.reads: data/table.csv"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""Doc."""', '"""Another doc."""'),
        ("# used below", "# used"),
        ("  # used below", ""),
        ('    """Pixels of a mask."""\n', ""),
        ("\n\n\ndef", "\n\n# A comment.\n\n\n\ndef"),
    ],
)
def test_comments_docstrings_and_blank_lines_change_nothing(toy, old, new):
    before = version(toy, "area")
    assert old in SOURCE
    (toy / "area.py").write_text(SOURCE.replace(old, new))
    assert version(toy, "area") == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (" > ", " >= "),
        ("kept\n\n#", "kept\n#"),
        ("no comment", "another"),
        ("scale * mask", "mask"),
        ("import base\n", ""),
    ],
)
def test_code_and_strings_change_the_module_alone(toy, old, new):
    before = version(toy, "area")
    assert old in SOURCE
    (toy / "area.py").write_text(SOURCE.replace(old, new))
    after = version(toy, "area")
    assert {name for name in before if before[name] != after[name]} == {"toy.area"}


def test_a_string_that_shares_its_line_with_code_hides_nothing():
    assert significant(b'class A: "doc"\n') != significant(b'class B: "doc"\n')
    assert significant(b'x = 1; "doc"\n') != significant(b'x = 2; "doc"\n')


@given(st.data())
def test_a_comment_at_a_random_line_of_the_package_changes_nothing(data):
    source = data.draw(st.sampled_from(MODULES)).read_bytes()
    kept = significant(source)
    rows = source.decode().splitlines(keepends=True)
    free = [statement.lineno - 1 for statement in ast.parse(source).body]  # not within a string of several lines
    if free:
        at = data.draw(st.sampled_from(free))
        assert significant("".join([*rows[:at], "# A comment.\n\n", *rows[at:]]).encode()) == kept


def test_an_unknown_root_is_refused(toy):
    with pytest.raises(ValueError, match="nothing"):
        version(toy, "nothing")


def loaded(*modules):
    """Modules of the project that a fresh process loads when it imports these."""
    code = (
        f"import json, sys, {', '.join(modules)}; "
        "print(json.dumps([name for name in sys.modules if name.split('.')[0] in ('kidney_ssl', 'stages')]))"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(json.loads(ended.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "stage", ["download", "select", "slice", "normalize", "finetune", "evaluate", "explain", "report"]
)
def test_no_module_that_a_stage_loads_is_missing(stage):
    found = code_version(f"stages.{stage}", packages=SOURCES | {"stages": ROOT / "stages"})
    assert loaded(f"stages.{stage}") <= set(found)


@pytest.mark.parametrize("method", ["simclr", "inpaint_switch"])
def test_no_module_that_a_method_loads_is_missing_and_no_other_method_counts(method):
    found = set(code_version(f"kidney_ssl.methods.{method}"))
    assert loaded(f"kidney_ssl.methods.{method}") <= found
    others = {f"kidney_ssl.methods.{one}" for one in METHODS if one != method}
    assert not found & others
