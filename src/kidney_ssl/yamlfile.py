"""YAML 1.2, as DVC reads it: `no` is a string, `5e-4` a number, and octal numbers are written `0o17`.

Two misleading things are refused: a duplicate key in a block, and an integer with leading zeros, which YAML 1.1 reads
as octal although it usually means a case number.
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
        # The library's own error prints both values, which may be endless if aliases are nested.
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
        InputError: invalid YAML, a duplicate key, or an integer with leading zeros; one line that gives the position.
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
    # The library passes on Python's own errors about `!!timestamp now`, a 13th month or 5,000 digits.
    except (YAMLError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise InputError(f"{where}: not valid YAML: {one_line(str(error))}") from error


def dump_yaml(content: Any, *, flow: bool = False) -> str:
    """Write plain values as YAML that `read_yaml` and DVC read alike.

    Args:
        content: the values.
        flow: write brackets on one line instead of blocks.
    """
    yaml: Any = YAML(typ="safe")  # the library declares its settings as None
    yaml.default_flow_style = flow
    yaml.sort_base_mapping_type_on_output = False
    yaml.width = 10_000
    stream = io.StringIO()
    yaml.dump(content, stream)
    return stream.getvalue()
