"""What a person can fix is an error of one line; every other error is a fault of ours."""


class UserError(Exception):
    """A mistake that the person at the keyboard can fix: one line, the cause and the next step."""

    exit_code = 1

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows of it."""
        return [f"error: {self}"]
