"""YAML as DVC reads it, version 1.2: `no` is a word, `5e-4` a number, `0o17` the only octal.

Two things that a reader takes otherwise than they look are refused: a key that stands twice in a block, and a whole
number with leading zeros, which YAML 1.1 takes for octal, and with which people mean a case.
"""

import io
import re
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import ConstructorError, SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from kidney_ssl.errors import InputError, one_line

LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+")


class _Constructor(SafeConstructor):
    def check_mapping_key(self, node: Any, key_node: Any, mapping: Any, key: Any, value: Any) -> bool:
        # The library's own error writes both values out, which an alias of aliases makes endless.
        if key in mapping:
            raise ConstructorError(
                None, None, f"the key {key_node.value} stands twice in its block", key_node.start_mark
            )
        return True

    def construct_yaml_int(self, node: Any) -> int:
        if LEADING_ZERO.fullmatch(node.value):
            problem = f"{node.value} has leading zeros: write the number without, or put a name into quotes"
            raise ConstructorError(None, None, problem, node.start_mark)
        return int(super().construct_yaml_int(node))


_Constructor.add_constructor("tag:yaml.org,2002:int", _Constructor.construct_yaml_int)


def read_yaml(text: str, where: str = "the text") -> Any:
    """Read plain values.

    Args:
        text: YAML.
        where: the file's name, for the error.

    Raises:
        InputError: it is no YAML, a key stands twice, or a whole number has leading zeros; one line with the place.
    """
    yaml = YAML(typ="safe")
    yaml.Constructor = _Constructor
    try:
        return yaml.load(text)
    except RecursionError:
        raise InputError(f"{where}: not valid YAML: brackets or blocks far too deep") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}: " if mark else ""
        raise InputError(f"{where}: not valid YAML: {place}{one_line(error.problem or error.context or '')}") from error
    # The library lets through what Python says of `!!timestamp now`, a 13th month or 5,000 digits.
    except (YAMLError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise InputError(f"{where}: not valid YAML: {one_line(str(error))}") from error


def dump_yaml(content: Any, *, flow: bool = False) -> str:
    """Write plain values as YAML that `read_yaml` and DVC read alike.

    Args:
        content: the values.
        flow: in brackets on one line, or in blocks.
    """
    yaml: Any = YAML(typ="safe")  # which types its settings as None
    yaml.default_flow_style = flow
    yaml.sort_base_mapping_type_on_output = False
    yaml.width = 10_000
    stream = io.StringIO()
    yaml.dump(content, stream)
    return stream.getvalue()
