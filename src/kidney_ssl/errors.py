"""The exception for bad input, shown to the user as one line."""

LONGEST = 300  # maximum characters quoted from another program's message


class InputError(Exception):
    """Bad input: a file, a folder or a parameter.

    The message is one line that names the case, file or key and says what to do. Stages print it without a
    traceback and exit with code 1; any other exception is a bug and keeps its traceback.
    """


def refuse_cases(problems: dict[str, str], advice: str) -> None:
    """Raise one error that lists every bad case of a run.

    Args:
        problems: case -> what is wrong with it; if empty, nothing is raised.
        advice: what the user can do, put at the end of the line.

    Raises:
        InputError: `problems` is not empty.
    """
    if problems:
        listed = "; ".join(f"{case}: {problem}" for case, problem in sorted(problems.items()))
        raise InputError(f"{len(problems)} bad case(s): {listed}. {advice}")


def one_line(text: str) -> str:
    """Text on one line, cut to `LONGEST` characters."""
    line = "".join(one if one.isprintable() else " " for one in " ".join(text.split()))
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."
