"""The one exception that reaches a person, and the one line it is."""

LONGEST = 300  # characters of what another program says is wrong


class InputError(Exception):
    """Bad input from outside: a file, a folder, a parameter.

    The message is one line that names the case, file or key and says what to do. Stages print it without a
    traceback and exit with 1; any other exception is a fault of the program and keeps its traceback.
    """


def refuse_cases(problems: dict[str, str], advice: str) -> None:
    """Raise one error that lists every bad case of a run.

    Args:
        problems: case -> what is wrong with it; nothing happens when it is empty.
        advice: what the reader can do, put at the end of the line.

    Raises:
        InputError: `problems` is not empty.
    """
    if problems:
        listed = "; ".join(f"{case}: {problem}" for case, problem in sorted(problems.items()))
        raise InputError(f"{len(problems)} bad case(s): {listed}. {advice}")


def one_line(text: str) -> str:
    """Text on one line and not without end."""
    line = "".join(one if one.isprintable() else " " for one in " ".join(text.split()))
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."
