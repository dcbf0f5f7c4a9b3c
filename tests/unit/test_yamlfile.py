"""YAML read as DVC reads it, but for what people would read otherwise, which is refused in one line."""

from pathlib import Path
from typing import Any

import pytest
from dvc.utils.serialize import parse_yaml
from hypothesis import given
from hypothesis import strategies as st

from kidney_ssl.errors import InputError
from kidney_ssl.yamlfile import dump_yaml, read_yaml

ROOT = Path(__file__).parents[2]
SCALARS = ["5e-4", "1e3", "no", "on", "y", "null", "~", "true", "0o17", "0x1F", "1_000", "1:60", "+5", ".5", "-.inf"]


@pytest.mark.parametrize("text", SCALARS)
def test_scalars_are_those_of_dvc(text: str) -> None:
    for content in (f"a: {text}", f"{text}: a", f"- {text}"):
        assert read_yaml(content) == parse_yaml(content, "")


def test_numbers_and_words_of_yaml_1_2() -> None:
    assert read_yaml("[5e-4, no, 0o17, 1e3]") == [0.0005, "no", 15, 1000.0]


@pytest.mark.parametrize("path", ["params.yaml", "dvc.yaml", "studies/kits23.yaml", "studies/smoke.yaml"])
def test_files_are_read_as_dvc_reads_them(path: str) -> None:
    text = (ROOT / path).read_text()
    assert read_yaml(text) == parse_yaml(text, path)


@pytest.mark.parametrize("text", ["00010", "0060", "-007", "010", "08", "+01", "0_1", "!!int 007"])
def test_a_whole_number_with_leading_zeros_is_refused_with_its_line(text: str) -> None:
    number = text.rpartition(" ")[2].replace("+", ".")
    for content in (f"a: 1\nb: {text}", f"a: 1\nb: [{text}]", f"a: 1\n{text}: 1"):
        with pytest.raises(InputError, match=rf"^params\.yaml: .*line 2: {number} "):
            read_yaml(content, "params.yaml")


@pytest.mark.parametrize("text", ["a: 1\nb: 2\na: 1", "a: 1\nb: {a: 1}\n'a': 2", "b: 1\nc: 2\n? b\n: 3"])
def test_a_key_that_stands_twice_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(InputError, match=r"^params\.yaml: .*line 3: the key [ab] stands twice"):
        read_yaml(text, "params.yaml")


def test_a_block_may_change_a_key_that_it_is_given_by_an_alias() -> None:
    assert read_yaml("a: &a {b: 1, c: 2}\nd: {<<: *a, b: 3}")["d"] == {"b": 3, "c": 2}


words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=6) | st.sampled_from(SCALARS)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | words,
    lambda one: st.lists(one, max_size=3) | st.dictionaries(words, one, max_size=3),
    max_leaves=6,
)


@given(plain, st.booleans())
def test_what_is_written_is_read_again_by_dvc_too(content: Any, flow: bool) -> None:
    text = dump_yaml({"content": content}, flow=flow)
    assert read_yaml(text) == parse_yaml(text, "") == {"content": content}
