"""Text from outside for property tests: any text, and good answers that a hostile machine spoils.

Few examples, always the same ones, and no time limit for one: quick, and never flaky.
"""

import re
from collections.abc import Iterator

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

quickly = settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
NASTY = [
    "",
    " ",
    "-1",
    "0",
    "9" * 5000,
    "1e999",
    "nan",
    "٣",
    "²",
    "\0",
    "\n",
    "\t",
    "\r",
    "\u2028",
    "\x1b]52;c;ZXZpbA==\x07",
    "\udcff",
    "\ud800",
    "../..",
    "/",
    ".git/config",
    "-oProxyCommand=x",
    "$(touch x)",
    "null",
    "[1, null]",
    '{"a": 5}',
    "[" * 5_000,
    '{"a":' * 5_000,
    "a" * 5_000,
]


@st.composite
def spoiled(draw, *answers: str) -> str:
    """One of these good answers, with some of its words and separators replaced, or cut off."""
    words = re.findall(r"[\w.-]+|\W", draw(st.sampled_from(answers)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(words) - 1)))
        words[at : at + draw(st.integers(0, 2))] = [draw(st.sampled_from(NASTY))]
    return "".join(words[: draw(st.none() | st.integers(0, len(words)))])


def spoil_each(answer: str) -> Iterator[str]:
    """Yield a good answer with each of its words and separators replaced by each nasty text."""
    words = re.findall(r"[\w.-]+|\W", answer)
    for at in range(len(words)):
        for nasty in (one for one in NASTY if len(one) < 50 or one[0] == "9"):
            yield "".join([*words[:at], nasty, *words[at + 1 :]])


def outside(*answers: str) -> st.SearchStrategy[str]:
    """Any bytes as the text that they become, or spoiled good answers."""
    noise = st.binary(max_size=200).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
    return noise | spoiled(*answers) if answers else noise
