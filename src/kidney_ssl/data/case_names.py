"""What a case may be called: the one rule, for folders, parameters and manifests."""

import re

CASE = r"[a-z]+_[A-Za-z0-9]+"  # case_00007 as in KiTS, liver_12 as in the Decathlon
FOLDER = "case_"  # how a case's folder begins in KiTS layout


def is_case(name: str) -> bool:
    """Whether a name is a case's: a word in small letters, `_`, and letters or digits."""
    return re.fullmatch(CASE, name) is not None


def is_case_folder(name: str) -> bool:
    """Whether a folder's name is a case's in KiTS layout: `case_` and letters or digits."""
    return is_case(name) and name.startswith(FOLDER)


def numbered_case(number: int) -> str:
    """The name of a case that is given by its number, as KiTS writes it: 7 is case_00007."""
    return f"case_{number:05d}"
