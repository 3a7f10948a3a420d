"""What the `lab` command prints: tables that fit the terminal, JSON, short values, messages."""

import os
import sys
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO

MIN_WIDTH = 6  # characters of a cell that is shortened to make a table fit


def format_table(
    rows: Sequence[Mapping[str, object]],
    columns: Sequence[str],
    whole: Collection[str] = (),
    spare: Sequence[str] = (),
) -> str:
    """Align rows under a line of column names.

    On a terminal the table is made to fit: columns in `spare`, all but the first, are dropped;
    cells are shortened, except in columns in `whole`; if it is still too wide, lines are shortened.
    """
    cells = {name: [escape(name), *(escape(row.get(name)) for row in rows)] for name in columns}
    widths = {name: max(map(display_width, column)) for name, column in cells.items()}
    space = terminal_width()
    flexible = [name for name in columns if name not in whole]
    least = widths | {n: min(widths[n], max(MIN_WIDTH, len(cells[n][0]))) for n in flexible}
    for name in reversed(spare[1:]):
        if sum(least[one] + 2 for one in widths) - 2 > space:
            del widths[name]
    flexible = [name for name in flexible if name in widths]
    while sum(widths.values()) + 2 * len(widths) - 2 > space and flexible:
        widest = max(flexible, key=lambda name: widths[name] - least[name])
        if widths[widest] <= least[widest]:
            break
        widths[widest] -= 1
    aligned = []
    for name, width in widths.items():
        texts = (
            [shorten(cell, width) for cell in cells[name]] if space < sys.maxsize else cells[name]
        )
        aligned.append([text + " " * (width - display_width(text)) for text in texts])
    lines = zip(*aligned, strict=True)
    return "\n".join(shorten("  ".join(line).rstrip(), space) for line in lines)


def terminal_width(otherwise: int = sys.maxsize) -> int:
    """Return the number of columns; without a terminal there is no limit, or `otherwise`."""
    try:
        columns = int(os.environ.get("COLUMNS") or os.get_terminal_size(1).columns)
    except (OSError, ValueError):
        columns = 0
    return columns if columns > 0 else otherwise


def count_files(number: int) -> str:
    """Format a number of files: "1 file", "2 files"."""
    return f"{number} file" + ("" if number == 1 else "s")


def print_json(content: object) -> None:
    """Print for programs; numbers that JSON lacks (NaN) become strings, as in the records."""
    import json

    text = json.dumps(json.loads(json.dumps(content), parse_constant=str), indent=1)
    print(text.replace("\x7f", "\\u007f"))  # the only control character that JSON keeps


def display_width(text: str) -> int:
    """Count the terminal columns of a text: Chinese, Japanese and emoji characters take two."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(map(bool, map(unicodedata.combining, text)))


def shorten(text: str, space: int) -> str:
    """Cut a text that is wider than `space` columns, and end it with three dots."""
    if display_width(text) <= space:
        return text
    text = text[: max(space - 3, 0)]
    while text and display_width(text) > space - 3:
        text = text[:-1]
    return text + "..."


def escape(value: object) -> str:
    """Format a value for one line: "" for None, and no character that controls a terminal."""
    text = "" if value is None else str(value)
    return text if text.isprintable() else "".join(map(_escape_character, text))


def escape_text(text: str) -> str:
    """Escape a text of several lines: line breaks and tabs stay."""
    if text.replace("\n", "").replace("\t", "").isprintable():
        return text
    return "".join(one if one in "\n\t" else _escape_character(one) for one in text)


def _escape_character(one: str) -> str:
    """Escape a character, unless it is printable or a space of any width."""
    if one.isprintable() or unicodedata.category(one) == "Zs":
        return one
    return one.encode("unicode_escape").decode()


def format_number(value: object) -> str:
    """Format a result: four significant digits."""
    return f"{value:.4g}" if isinstance(value, float) else escape(value)


def format_duration(seconds: float | None) -> str:
    """Format as 5s, 3m05 or 2h07."""
    if seconds is None or not abs(seconds) < 1e12:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}" if hours else f"{minutes}m{rest:02}" if minutes else f"{rest}s"


# --- output ---------------------------------------------------------------------------------------


class EscapingStream:
    """A stream that escapes the text written to it, and otherwise does what its stream does."""

    def __init__(self, stream: "TextIO"):
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(escape_text(text))
        return len(text)

    def writelines(self, lines: "Iterable[str]") -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> "Any":
        return getattr(self.stream, name)


def escape_all_output() -> None:
    """Escape all that this process prints from now on, tracebacks included."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, EscapingStream):
            setattr(sys, name, EscapingStream(stream))


def stream_for_bars() -> "TextIO | None":
    """Return the stream for progress bars: not escaped, as they move the cursor."""
    return sys.__stderr__


class OutputWriter:
    """Writes what a program on a machine printed: unchanged to a file, made safe for a terminal.

    On a terminal colors, carriage returns and moves of the cursor stay, for progress bars; titles,
    the clipboard and all other control sequences are escaped.
    """

    def __init__(self) -> None:
        self.decoder: Any = None
        self.rest = ""  # the beginning of a sequence that the next piece may complete

    def __call__(self, piece: bytes) -> None:
        if sys.stdout.isatty():
            piece = self.make_safe(piece)
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()

    def make_safe(self, piece: bytes) -> bytes:
        import codecs
        import re

        self.decoder = self.decoder or codecs.getincrementaldecoder("utf-8")("backslashreplace")
        text = self.rest + self.decoder.decode(piece)
        unfinished = re.search(r"\x1b(\[[0-9;]{0,20})?\Z", text)
        self.rest = unfinished[0] if unfinished else ""
        parts = re.split(r"(\x1b\[[0-9;]{0,20}[ABCDGKm]|[\r\b])", text.removesuffix(self.rest))
        safe = (part if number % 2 else escape_text(part) for number, part in enumerate(parts))
        return "".join(safe).encode("utf-8", "backslashreplace")


def print_text(*texts: object, sep: str = " ", end: str = "\n") -> None:
    """Print to standard output, escaped: print() for what also runs outside the `lab` command."""
    print(escape_text(sep.join(map(str, texts))), end=end, flush=True)


def print_message(*texts: object, sep: str = " ") -> None:
    """Print to standard error, escaped; standard output may be read by a program."""
    print(escape_text(sep.join(map(str, texts))), file=sys.stderr, flush=True)
