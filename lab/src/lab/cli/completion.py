"""What the shell completes after `lab`: commands, options, machines, runs, datasets and jobs.

Commands and options come from the parser, so they are never out of date. Nothing here opens a
connection or waits for one: jobs are asked for if one is open; otherwise they are those seen last.
"""

import argparse
import re
from collections.abc import Sequence
from contextlib import suppress

from lab.ground import errors, project
from lab.ground.terminal import escape, shorten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lab.ssh.machines import Machine

Candidate = tuple[str, str]  # a word that fits, and its description

TIMEOUT = 1.0  # seconds for the machine's answer
DESCRIPTION = 60  # characters
SAFE = re.compile(r"[\w.=-]+", re.A)  # a plain word for every shell

# Each runs `lab _complete -- WORD...`, where the last word is being typed, and uses each line up
# to its tab. Without a candidate from lab the shell completes files.
BASH = r"""_lab() {
    local word
    COMPREPLY=()
    while IFS=$'\t' read -r word _; do
        COMPREPLY+=("$word")
    done < <("$1" _complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -o default -F _lab lab
"""
ZSH = r"""_lab() {
    local -a found
    local tab=$'\t'
    found=(${(f)"$("${words[1]}" _complete -- "${(@Q)words[2,CURRENT]}" 2>/dev/null)"})
    found=(${found/$tab/:})
    if (( $#found )); then _describe lab found; else _files; fi
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -i }
compdef _lab lab
"""
FISH = r"""function __lab_complete
    set -l words (commandline -opc)
    set -l typed (commandline -ct)
    set -l found ($words[1] _complete -- $words[2..-1] "$typed" 2>/dev/null)
    if set -q found[1]
        printf '%s\n' $found
    else
        __fish_complete_path "$typed"
    end
end
complete -c lab -f -a '(__lab_complete)'
"""
SHELLS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def answer(parser: argparse.ArgumentParser, words: list[str]) -> None:
    """Print the candidates for the last word, a line each: the word, a tab, its description."""
    try:
        found = find_candidates(parser, words[1:] or [""])  # without the dashes
    except errors.LabError:  # a damaged machines.toml, say: not the moment to report it
        return
    for word, description in found:
        if SAFE.fullmatch(word):
            print(f"{word}\t{shorten(escape(description), DESCRIPTION)}")


def find_candidates(parser: argparse.ArgumentParser, words: Sequence[str]) -> list[Candidate]:
    """Find everything that fits after these words; the last one is being typed."""
    *before, typed = words
    machine: str | None = None
    option: argparse.Action | None = None  # that still needs its value
    positionals = _list_positionals(parser)
    for word in before:
        if option:
            if word == "=":  # bash makes three words of --machine=gpu
                continue
            machine = word if option.dest == "machine" else machine
            option = None
        elif word == "--":
            return []  # what follows is for another program
        elif word.startswith("-"):
            name, equals, value = word.partition("=")
            option = parser._option_string_actions.get(name)
            if option and (equals or option.nargs == 0):
                machine = value if option.dest == "machine" and value else machine
                option = None
        elif positionals and isinstance(positionals[0], argparse._SubParsersAction):
            if word not in positionals[0].choices:
                return []
            parser = positionals[0].choices[word]
            positionals = _list_positionals(parser)
        elif positionals and positionals[0].nargs == argparse.REMAINDER:
            return []  # what follows is for the experiment
        elif positionals and positionals[0].nargs not in ("*", "+"):
            positionals = positionals[1:]
    prefix = ""
    if typed.startswith("--") and "=" in typed and not option:
        name, _, typed = typed.partition("=")
        option, prefix = parser._option_string_actions.get(name), f"{name}="
        if not option:
            return []
    typed = "" if option and typed == "=" else typed
    if option:
        found = _find_values(option, parser, machine)
    elif typed.startswith("-"):
        found = [
            (name, action.help or "")
            for action in parser._actions
            for name in action.option_strings
            if action.help != argparse.SUPPRESS
        ]
    else:
        found = _find_values(positionals[0], parser, machine) if positionals else []
    return [(prefix + word, description) for word, description in found if word.startswith(typed)]


def _list_positionals(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return the positional arguments of a command, in order."""
    return [action for action in parser._actions if not action.option_strings]


def _find_values(
    action: argparse.Action, parser: argparse.ArgumentParser, machine: str | None
) -> list[Candidate]:
    """Find the values that an argument or option may have."""
    if isinstance(action, argparse._SubParsersAction):
        return [(one.dest, one.help or "") for one in action._choices_actions]
    if action.choices:
        return [(choice, "") for choice in action.choices]
    if action.nargs == argparse.REMAINDER:
        words = [("with", "settings"), ("--", "another command")]
        return words if action.dest == "arguments" else []  # lab run's; other words are uv's
    if action.dest == "machine":
        any_of_them = [("any", "the first with enough free GPUs")]
        return list_machines() + (any_of_them if parser.prog == "lab run" else [])
    if action.metavar == "RUN":
        return list_runs()
    if action.metavar == "DATASET":
        return list_datasets()
    if action.metavar == "JOB":
        command = parser.prog.split()[-1]
        return list_jobs(machine, only_live=command in ("stop", "attach", "wait"))
    return []


def list_machines() -> list[Candidate]:
    from lab.ssh import machines

    return [(name, machine.ssh) for name, machine in machines.read_all().items()]


def list_runs() -> list[Candidate]:
    from lab.runs import reading

    return [(name, "") for name in sorted(reading.run_ids(), reverse=True)]


def list_datasets() -> list[Candidate]:
    try:
        names = sorted(path.name for path in project.data_folder().iterdir() if path.is_dir())
    except OSError:
        return []
    return [(name, "") for name in names if name[0] != "."]


def list_jobs(machine_name: str | None, only_live: bool) -> list[Candidate]:
    """List the ids of jobs, newest first, then the names that were given to them."""
    from lab.jobs import job_cache
    from lab.ssh import machines

    machine = machines.get(machine_name)
    if job_cache.age(machine) >= job_cache.FRESH:
        ask_machine(machine)
    jobs = [job for job in job_cache.load(machine) if not (only_live and job.ended)][::-1]
    named = [(job.name, f"{job.id} {job.state}") for job in jobs if job.name]
    return [(job.id, f"{job.state} {job.name}".rstrip()) for job in jobs] + named


def ask_machine(machine: "Machine") -> None:
    """Ask which jobs there are, if a connection is open and answers at once."""
    from lab.jobs import control as jobs
    from lab.jobs import job_cache
    from lab.ssh.connection import Connection

    job_cache.touch(machine)
    answer = Connection(machine).run_if_open("list.sh", TIMEOUT, id="", limit=jobs.NEWEST)
    if answer:
        with suppress(ValueError):  # not the moment to say that it is damaged
            job_cache.store(machine, jobs.parse(answer), all_of_them=True)
