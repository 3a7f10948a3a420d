"""The errors that a user can fix, each shown as one line; any other exception is a bug in lab."""


class LabError(Exception):
    """Something that the user can fix. The message is one line: the cause and the next step.

    A more precise type exists wherever code, or a user's notebook, has to tell the error apart.
    """

    exit_code = 1

    def _render_traceback_(self) -> list[str]:
        """Return what a notebook shows in place of a traceback."""
        from lab.ground.terminal import escape_text

        return [escape_text(f"error: {self}")]


def explain_os_error(error: OSError, otherwise: object) -> str:
    """Return the file of an error, or `otherwise`, and its cause; it may lack a number and text."""
    cause = error.strerror or str(error) or type(error).__name__
    return f"{error.filename or otherwise}: {cause}"


class UsageError(LabError):
    """The command was called in a way that cannot work, whatever the state of the project."""

    exit_code = 2
