"""The marks of params.yaml: what the thesis says (T), what is ours (O), and what the thesis leaves open (?)."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kidney_ssl.yamlfile import dump_yaml, read_yaml

# The last bracket of a comment, with whatever words stand around its marks: (T), (T; training only: O), (? its value).
_BRACKET = re.compile(r"\(([^()]*)\)\s*$")
_MARK = re.compile(r"(?<!\w)(?:[TO](?!\w)|\?)")
_KEY = re.compile(r"^(\s*)([A-Za-z0-9_-]+):")


@dataclass(frozen=True)
class Departure:
    """One parameter: dotted key, value as YAML, what its comment says, and its marks out of T, O and ?."""

    key: str
    value: str
    meaning: str
    marks: tuple[str, ...]
    remark: str


def read_departures(path: Path) -> list[Departure]:
    """Read every key whose comment ends in a bracket with a mark, in the order of the file."""
    text = path.read_text(encoding="utf-8")
    content = read_yaml(text, str(path))
    found: list[Departure] = []
    comment: list[str] = []
    stack: list[tuple[int, str]] = []
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            comment.append(line.strip().lstrip("#").strip())
            continue
        key = _KEY.match(line)
        if key:
            indent = len(key[1])
            stack = [entry for entry in stack if entry[0] < indent] + [(indent, key[2])]
            said = " ".join(comment)
            bracket = _BRACKET.search(said)
            marks = tuple(dict.fromkeys(_MARK.findall(bracket[1]))) if bracket else ()
            if bracket and marks:
                names = [name for _, name in stack]
                remark = bracket[1] if bracket[1] not in marks else ""
                meaning = said[: bracket.start()].strip()
                found.append(Departure(".".join(names), _value(content, names), meaning, marks, remark))
        comment = []
    return found


def _value(content: Any, names: list[str]) -> str:
    for name in names:
        content = content[name]
    text = dump_yaml(content, flow=True).strip()
    return text.removesuffix("...").strip()
