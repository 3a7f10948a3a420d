"""The command that makes any git repository a project: init."""

import argparse
import sys
from collections.abc import Callable

from lab.cli.command import Command, CommandParser
from lab.ground.errors import LabError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lab.adoption.survey import Answers, Repository

QUESTIONS = {
    "name": "Short name: of the Jupyter kernel, and of the folder on machines",
    "python": "Python of the environment",
    "remote": "Remote machine, as you type it after ssh: USER@HOST, HOST or an alias (empty: none)",
    "gateway": "Gateway in front of it: USER@HOST or HOST (empty: none)",
    "outputs": "Folders that your scripts write to, such as out/ (empty: none)",
}


def add_init_arguments(parser: CommandParser) -> None:
    parser.add_argument("--yes", action="store_true", help="ask nothing")
    parser.add_argument("--name", help=QUESTIONS["name"])
    parser.add_argument("--python", metavar="VERSION", help=QUESTIONS["python"])
    parser.add_argument("--remote", metavar="HOST", help=QUESTIONS["remote"])
    parser.add_argument("--gateway", metavar="HOST", help=QUESTIONS["gateway"])
    parser.add_argument("--outputs", metavar="FOLDERS", help=QUESTIONS["outputs"])
    parser.add_argument(
        "--wheel", default="", metavar="FILE", help="the wheel of lab [the installed one]"
    )


def init_project(args: argparse.Namespace) -> None:
    from pathlib import Path

    from lab.adoption import adopt, survey
    from lab.ground import project
    from lab.ground.terminal import escape

    folder = Path.cwd().resolve()
    if found := project.find_project(folder):
        print(f"{escape(found)} is already a project: nothing was changed")
        return
    repository = survey.find_repository(folder)
    done = adopt.adopt(repository, ask(args, repository), args.wheel)
    print(f"  added     {', '.join(done.added)}")
    if done.extended:
        print(f"  extended  {', '.join(done.extended)}")
    for note in done.notes:
        print(f"  left      {note}")
    print(f"To undo it: {done.undo}")
    print("Now: python3 bootstrap.py")


def ask(args: argparse.Namespace, repository: "Repository") -> "Answers":
    """Ask on the terminal for what the options leave open, and check every answer."""
    from lab.adoption import survey

    proposed = repository.propose()
    given = {name: getattr(args, name) for name in QUESTIONS}
    if repository.has_own_name:
        if given["name"] not in (None, proposed.name):
            raise UsageError(f"pyproject.toml names the project {proposed.name}: leave out --name.")
        given["name"] = proposed.name
    if not args.yes and None in given.values() and not sys.stdin.isatty():
        raise UsageError("there is no terminal to ask on: give --yes, and options as needed.")
    answers: dict[str, str] = {}
    for name, question in QUESTIONS.items():
        default = getattr(proposed, name) or ""
        if given[name] is not None:
            answers[name] = survey.check(name, given[name])
        elif args.yes or (name == "gateway" and not answers["remote"]):
            answers[name] = default
        else:
            answers[name] = ask_one(name, question, default, survey.check)
    outputs = tuple(answers.pop("outputs").replace(",", " ").split())
    return survey.Answers(**answers, outputs=outputs)


def ask_one(name: str, question: str, default: str, check: Callable[[str, str], str]) -> str:
    """Ask until the answer is valid."""
    while True:
        print(f"{question}{f' [{default}]' if default else ''}: ", end="", flush=True)
        line = sys.stdin.readline()
        if not line:
            raise LabError("no answer: nothing was changed.")
        try:
            return check(name, line.strip() or default)
        except UsageError as error:
            print(f"  {error}")


COMMANDS = (
    Command("init", "turn a git repository into a project", init_project, add_init_arguments),
)
