"""Errors that are answered with one clear message."""


class UserError(Exception):
    """A mistake or a missing thing that the user can mend: one clear message, exit code 2,
    no traceback."""


class RunFailed(Exception):
    """Work that had begun cannot go on, for a reason that is known: one clear message, exit code 1;
    what was finished stays."""


def one_line(text: object) -> str:
    """A text, or an error's, without line breaks and runs of spaces."""
    return " ".join(str(text).split())
