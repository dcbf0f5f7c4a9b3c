"""The rule for names of cases, used for folders, parameters and manifests."""

import re

CASE = r"[a-z]+_[A-Za-z0-9]+"  # case_00007 as in KiTS, liver_12 as in the Decathlon
FOLDER = "case_"  # prefix of a case's folder in KiTS layout


def is_case(name: str) -> bool:
    """Whether a name is a valid case name: lower-case letters, `_`, and letters or digits."""
    return re.fullmatch(CASE, name) is not None


def is_case_folder(name: str) -> bool:
    """Whether a folder's name is that of a case in KiTS layout: `case_` and letters or digits."""
    return is_case(name) and name.startswith(FOLDER)


def numbered_case(number: int) -> str:
    """The name of a case from its number, as in KiTS: 7 is case_00007."""
    return f"case_{number:05d}"
