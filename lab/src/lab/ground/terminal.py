"""How the `lab` command shows things: tables that fit the terminal, JSON, and short values."""

import os
import sys
import unicodedata

EACH_AT_LEAST = 6  # characters of a cell that is cut to make a table fit


def format_table(rows: list[dict], columns: list[str], whole=(), spare=()) -> str:
    """Rows as aligned text under a line of column names.

    On a terminal it fits: columns of `spare` are left out, but for the first of them, and all but
    those of `whole` are cut; at the very end, the lines.
    """
    cells = {name: [name, *(escape(row.get(name)) for row in rows)] for name in columns}
    widths = {name: max(map(display_width, column)) for name, column in cells.items()}
    space = terminal_width()
    narrow = [name for name in columns if name not in whole]
    least = widths | {n: min(widths[n], max(EACH_AT_LEAST, len(n))) for n in narrow}
    for name in reversed(spare[1:]):
        if sum(least[one] + 2 for one in widths) - 2 > space:
            del widths[name]
    while sum(widths.values()) + 2 * len(widths) - 2 > space and narrow:
        widest = max(narrow, key=lambda name: widths[name] - least[name])
        if widths[widest] <= least[widest]:
            break
        widths[widest] -= 1
    if space < sys.maxsize:
        cells = {
            name: [shorten(cell, most) for cell in cells[name]] for name, most in widths.items()
        }
    columns = [
        [cell + " " * (most - display_width(cell)) for cell in cells[n]]
        for n, most in widths.items()
    ]
    lines = zip(*columns, strict=True)
    return "\n".join(shorten("  ".join(line).rstrip(), space) for line in lines)


def terminal_width() -> int:
    """In letters; without a terminal there is no limit."""
    try:
        columns = int(os.environ.get("COLUMNS") or os.get_terminal_size(1).columns)
    except (OSError, ValueError):
        columns = 0
    return columns if columns > 0 else sys.maxsize


def count_files(number: int) -> str:
    """So many files, in words: "1 file", "2 files"."""
    return f"{number} file" + ("" if number == 1 else "s")


def print_json(content) -> None:
    """For programs; what JSON has no number for is a string, as in the records."""
    import json

    print(json.dumps(json.loads(json.dumps(content), parse_constant=str), indent=1))


def display_width(text: str) -> int:
    """How many columns of a terminal it takes: Chinese, Japanese and emoji letters take two."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return len(text) + wide - sum(map(bool, map(unicodedata.combining, text)))


def shorten(text: str, space: int) -> str:
    """The text, or its beginning and three dots, so that it takes no more columns than these."""
    if display_width(text) <= space:
        return text
    text = text[: max(space - 3, 0)]
    while text and display_width(text) > space - 3:
        text = text[:-1]
    return text + "..."


def escape(value) -> str:
    """A value in a table: nothing for None, and nothing that could steer a terminal."""
    text = "" if value is None else str(value)
    return text if text.isprintable() else ascii(text)


def format_number(value) -> str:
    """A result in a table: four digits that matter."""
    return f"{value:.4g}" if isinstance(value, float) else escape(value)


def format_duration(seconds: float | None) -> str:
    """5s, 3m05 or 2h07."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}" if hours else f"{minutes}m{rest:02}" if minutes else f"{rest}s"


def print_message(text: str) -> None:
    """To the person; what a program would read goes to standard output."""
    print(text, file=sys.stderr, flush=True)
