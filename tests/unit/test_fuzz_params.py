"""params.yaml changed at random: parameters of the right types, or one line; never another exception."""

import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kidney_ssl.config import Params, load
from kidney_ssl.errors import InputError
from kidney_ssl.yamlfile import dump_yaml, read_yaml

SMOKE = (Path(__file__).parents[2] / "studies" / "smoke.yaml").read_text(encoding="utf-8")
EXTREMES = [0, -1, 1, 2**31, 2**63, 10**30, -(10**30), 1e308, -1e308, 5e-324, float("inf"), float("-inf"), float("nan")]
# Values that YAML reads as something else than they look, cannot read, or must not obey.
PLAIN = ["~", "yes", "1:60", "0o17", "0x1F", "1_000", "1e400", ".inf", "-.nan", "2026-13-45", "2026-01-01", "=", "<<"]
PLAIN += ["!!int a", "!!float a", "!!bool a", "!!timestamp a", "!!binary a", "!!null a", "!!set {a}", "!!omap [a]"]
PLAIN += [
    "!!python/object/apply:os.system [exit 1]",
    "!!python/name:os.system",
    "!!python/none",
    "!own 1",
    "!",
    "*none",
]
PLAIN += [
    "&a [*a]",
    "&a {b: *a}",
    "{[1]: 2}",
    "{{a: 1}: 2}",
    "? 1",
    "'\\ud800'",
    '"\\ud800"',
    '"\\0"',
    '"\\x85\\u2028"',
]
PLAIN += [
    "|\n  text\n  of lines",
    "- 1\n- 2",
    "9" * 5000,
    "0x" + "F" * 5000,
    "0." + "9" * 5000,
    "0x" + "F" * 5000,
    "[" * 5000,
    "{a: " * 2000,
    "- " * 2000,
    "\t",
]
PLAIN += ["{<<: [1]}", "{<<: {a: 1}}", "$HOME", "~nobody-there/raw", "a\0b", "a" * 70_000, "\ufeff", "%YAML 9.9", "---"]


def attempt(tmp_path: Path, content: str | bytes) -> Params | str:
    """What `load` gives: parameters, or the line of its error."""
    path = tmp_path / "params.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    try:
        found = load(path)
        assert isinstance(found, Params)
        _ = found.data.store, found.compute.store_folder, found.budgets
    except InputError as error:
        message = str(error)
        assert message.isprintable()  # and so on one line
        assert len(message) < 20_000
        return message
    return found


def places(content: Any, at: tuple = ()) -> list[tuple]:
    """Where a key or a member of a list stands, at any depth."""
    inner = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [(*at, key) for key, _ in inner] + [one for key, value in inner for one in places(value, (*at, key))]


def parent(content: Any, at: tuple) -> Any:
    for key in at[:-1]:
        content = content[key]
    return content


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


words = st.text(max_size=8)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | words | st.dates() | st.binary(max_size=4)
trees = st.recursive(
    scalars,
    lambda one: st.lists(one, max_size=4) | st.dictionaries(words | st.integers(), one, max_size=4),
    max_leaves=8,
)
values = st.sampled_from(EXTREMES) | trees | st.just(50).map(nested)


@settings(derandomize=True, database=None)
@given(data=st.data())
def test_keys_removed_added_and_set_to_anything(data: st.DataObject, tmp_path_factory) -> None:
    content = read_yaml(SMOKE)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.sampled_from(places(content)))
        block, key = parent(content, at), at[-1]
        how = data.draw(st.sampled_from(["remove", "set", "set", "rename", "double", "move"]))
        if how == "remove":
            del block[key]
        elif how == "set":
            block[key] = data.draw(values)
        elif isinstance(block, list):
            block.insert(key, copy.deepcopy(block[key]))
        elif how == "rename":
            block[data.draw(words | st.integers() | st.none())] = block.pop(key)
        elif how == "double":
            block[f"{key}2"] = copy.deepcopy(block[key])
        else:
            content[str(key)] = copy.deepcopy(block[key])
    attempt(tmp_path_factory.getbasetemp(), dump_yaml(content))


@pytest.mark.parametrize("value", PLAIN, ids=[repr(value[:30]) for value in PLAIN])
def test_a_line_set_to_what_yaml_reads_otherwise_cannot_read_or_must_not_obey(value: str, tmp_path: Path) -> None:
    for key in ("  seed:", "  root:", "    options:", "network:"):
        lines = SMOKE.splitlines()
        place = next(number for number, line in enumerate(lines) if line.startswith(key))
        lines[place] = lines[place].partition(":")[0] + ": " + value
        attempt(tmp_path, "\n".join(lines))


@settings(derandomize=True, database=None)
@given(
    damage=st.lists(
        st.tuples(
            st.integers(0, 40_000),
            st.integers(0, 9),
            st.sampled_from([*"&*!|>'\"%@`,[]{}:#-? \t\n"]).map(str.encode) | st.binary(max_size=3),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_bytes_changed_anywhere(damage: list[tuple[int, int, bytes]], tmp_path_factory) -> None:
    content = SMOKE.encode()
    for place, length, other in damage:
        at = place % len(content)
        content = content[:at] + other + content[at + length :]
    attempt(tmp_path_factory.getbasetemp(), content)


def test_an_alias_of_aliases_is_refused_and_not_written_out(tmp_path: Path) -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 20)]  # 9 ** 20 members
    bomb = "\n".join(lines)
    for key in ("seeds: [0]", "network: resnet18", "options: {}"):
        message = attempt(tmp_path, f"{bomb}\n" + SMOKE.replace(key, f"{key.split(':')[0]}: *a19", 1))
        assert "a0: unknown key" in message
    options = bomb.replace("\n", ", ").join("{}")
    assert "an option is a number" in attempt(tmp_path, SMOKE.replace("options: {}", f"options: {options}", 1))


def test_code_in_a_parameter_file_is_refused_and_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for tag in (f'!!python/object/apply:os.mkdir ["{mark}"]', f'!!python/object/new:os.mkdir [["{mark}"]]'):
        message = attempt(tmp_path, SMOKE.replace("network: resnet18", f"network: {tag}"))
        assert "could not determine a constructor for the tag" in message
    assert not mark.exists()
