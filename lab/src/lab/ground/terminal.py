"""What the `lab` command prints: tables that fit the terminal, JSON, short values, messages."""

import os
import sys
import unicodedata
from collections.abc import Collection, Mapping, Sequence

NARROWEST = 6  # characters of a cell that is shortened to make a table fit


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
    cells = {name: [name, *(escape(row.get(name)) for row in rows)] for name in columns}
    widths = {name: max(map(display_width, column)) for name, column in cells.items()}
    space = terminal_width()
    flexible = [name for name in columns if name not in whole]
    least = widths | {n: min(widths[n], max(NARROWEST, len(n))) for n in flexible}
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
    for name, most in widths.items():
        texts = (
            [shorten(cell, most) for cell in cells[name]] if space < sys.maxsize else cells[name]
        )
        aligned.append([text + " " * (most - display_width(text)) for text in texts])
    lines = zip(*aligned, strict=True)
    return "\n".join(shorten("  ".join(line).rstrip(), space) for line in lines)


def terminal_width() -> int:
    """Return the number of columns; without a terminal there is no limit."""
    try:
        columns = int(os.environ.get("COLUMNS") or os.get_terminal_size(1).columns)
    except (OSError, ValueError):
        columns = 0
    return columns if columns > 0 else sys.maxsize


def count_files(number: int) -> str:
    """Format a number of files: "1 file", "2 files"."""
    return f"{number} file" + ("" if number == 1 else "s")


def print_json(content: object) -> None:
    """Print for programs; numbers that JSON lacks (NaN) become strings, as in the records."""
    import json

    print(json.dumps(json.loads(json.dumps(content), parse_constant=str), indent=1))


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
    """Format a value safely: "" for None, and no characters that control a terminal."""
    text = "" if value is None else str(value)
    return text if text.isprintable() else ascii(text)


def format_number(value: object) -> str:
    """Format a result: four significant digits."""
    return f"{value:.4g}" if isinstance(value, float) else escape(value)


def format_duration(seconds: float | None) -> str:
    """Format as 5s, 3m05 or 2h07."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}" if hours else f"{minutes}m{rest:02}" if minutes else f"{rest}s"


def print_message(text: str) -> None:
    """Print for the person, to standard error; standard output is for programs, too."""
    print(text, file=sys.stderr, flush=True)
