"""Commands in a terminal of their own on the laptop."""


def in_terminal(laptop, command: str, **options):
    """Start a command in a terminal of its own on the laptop; its stdin is the keyboard."""
    wrapped = f"stty rows 40 cols 120; {command}"
    words = ["script", "-qec", wrapped, "/dev/null"]
    return laptop.popen(*words, stdin=-1, stderr=-2, **options)


def read_until(process, text: str) -> str:
    """Return what a terminal shows, up to this text."""
    shown = ""
    while text not in shown:
        piece = process.stdout.read(1)
        assert piece, f"it ended without {text!r}: {shown}"
        shown += piece
    return shown


def type_in(process, text: str) -> None:
    """Type a text into its terminal."""
    process.stdin.write(text)
    process.stdin.flush()
