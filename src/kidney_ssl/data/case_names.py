"""What a case may be called: the one rule, for folders, parameters and manifests."""

import re

CASE = r"case_[A-Za-z0-9]+"


def is_case(name: str) -> bool:
    """Whether a name is a case's: `case_` and letters or digits."""
    return re.fullmatch(CASE, name) is not None


def numbered_case(number: int) -> str:
    """The name of a case that is given by its number, as KiTS writes it: 7 is case_00007."""
    return f"case_{number:05d}"
