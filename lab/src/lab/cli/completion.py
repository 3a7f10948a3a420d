"""What the shell completes after `lab`: commands, options, machines, runs, datasets and jobs.

Commands and options are read off the parser, so that they are never out of date. Nothing here opens
a connection, and nothing waits for one: jobs are those last seen, or asked for on an open line.
"""

import argparse
import re

from lab.ground import errors, project
from lab.ground.terminal import escape, shorten

QUICK = 1.0  # seconds for the machine's answer
SAID = 60  # letters of a description
SAFE = re.compile(r"[\w.=-]+", re.A)  # a shell takes it for nothing but a word

# Each runs `lab _complete -- WORD...`, the last word being the one that is typed, and takes what is
# before the tab in each line. Where lab has nothing to say, the shell completes files.
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
    """Print the candidates for the last word, a line each: the word, a tab, what it is."""
    try:
        found = candidates(parser, words[1:] or [""])  # without the dashes
    except errors.LabError:  # in machines.toml, say: not the moment for it
        return
    for word, about in found:
        if SAFE.fullmatch(word):
            print(f"{word}\t{shorten(escape(about or ''), SAID)}")


def candidates(parser: argparse.ArgumentParser, words: list[str]) -> list[tuple[str, str]]:
    """(word, description) of everything that fits behind these words; the last one is typed."""
    *before, typed = words
    machine, option, places = None, None, _places(parser)
    for word in before:
        if option:
            if word == "=":  # bash makes three words of --machine=gpu
                continue
            machine = word if option.dest == "machine" else machine
            option = None
        elif word == "--":
            return []  # another program's own
        elif word.startswith("-"):
            name, equals, value = word.partition("=")
            option = parser._option_string_actions.get(name)
            if option and (equals or option.nargs == 0):
                machine = value if option.dest == "machine" and value else machine
                option = None
        elif places and isinstance(places[0], argparse._SubParsersAction):
            if word not in places[0].choices:
                return []
            parser = places[0].choices[word]
            places = _places(parser)
        elif places and places[0].nargs == argparse.REMAINDER:
            return []  # the experiment's own
        elif places and places[0].nargs not in ("*", "+"):
            places = places[1:]
    start = ""
    if typed.startswith("--") and "=" in typed and not option:
        name, _, typed = typed.partition("=")
        option, start = parser._option_string_actions.get(name), f"{name}="
        if not option:
            return []
    typed = "" if option and typed == "=" else typed
    if option:
        found = _values(option, parser, machine)
    elif typed.startswith("-"):
        found = [
            (name, action.help)
            for action in parser._actions
            for name in action.option_strings
            if action.help != argparse.SUPPRESS
        ]
    else:
        found = _values(places[0], parser, machine) if places else []
    return [(start + word, about) for word, about in found if word.startswith(typed)]


def _places(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """What a command takes beside its options, in order."""
    return [action for action in parser._actions if not action.option_strings]


def _values(action: argparse.Action, parser, machine: str | None) -> list[tuple[str, str]]:
    """What may stand in the place of an argument, or behind an option."""
    if isinstance(action, argparse._SubParsersAction):
        return [(one.dest, one.help) for one in action._choices_actions]
    if action.choices:
        return [(choice, "") for choice in action.choices]
    if action.nargs == argparse.REMAINDER:
        known = [("with", "settings"), ("--", "another command")]
        return known if action.dest == "arguments" else []  # lab run's; others are uv's
    if action.dest == "machine":
        return machine_names()
    kinds = {"RUN": run_ids, "DATASET": dataset_names}
    if action.metavar in kinds:
        return kinds[action.metavar]()
    if action.metavar == "JOB":
        command = parser.prog.split()[-1]
        return job_ids(machine, only_live=command in ("stop", "attach"))
    return []


def machine_names() -> list[tuple[str, str]]:
    from lab.ssh import machines

    return [(name, machine.ssh) for name, machine in machines.machines().items()]


def run_ids() -> list[tuple[str, str]]:
    from lab.runs import reading

    return [(name, "") for name in sorted(reading.names(), reverse=True)]


def dataset_names() -> list[tuple[str, str]]:
    try:
        inside = sorted(path.name for path in project.data_folder().iterdir() if path.is_dir())
    except OSError:
        return []
    return [(name, "") for name in inside if name[0] != "."]


def job_ids(name: str | None, only_live: bool) -> list[tuple[str, str]]:
    """The ids of jobs, and the names that were given to them; newest first."""
    from lab.jobs import known_jobs
    from lab.ssh import machines

    machine = machines.machine(name)
    if known_jobs.age(machine) >= known_jobs.FRESH:
        refresh(machine)
    known = [job for job in known_jobs.recall(machine) if not (only_live and job.ended)][::-1]
    named = [(job.name, f"{job.id} {job.state}") for job in known if job.name]
    return [(job.id, f"{job.state} {job.name}".rstrip()) for job in known] + named


def refresh(machine) -> None:
    """See what jobs there are, if a connection is open and answers at once."""
    from lab.jobs import control as jobs
    from lab.jobs import known_jobs
    from lab.ssh.connection import Connection

    known_jobs.touch(machine)
    answer = Connection(machine).ask_if_open("list.sh", QUICK, id="", most=jobs.LISTED)
    if answer:
        known_jobs.remember(machine, jobs.parse(answer), all_of_them=True)
