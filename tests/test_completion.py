"""Tab after `lab` offers what fits, in real shells, and nobody waits for a machine."""

import itertools
import os
import select

import pytest

from helpers.jobs import GO, ended, job, logged, start, until
from helpers.terminal import in_terminal, type_in

SHELLS = {
    "bash": ("bash --norc", 'eval "$(lab completion bash)"'),
    "zsh": ("zsh -f", 'eval "$(lab completion zsh)"'),
    "fish": ("fish --no-config", "lab completion fish | source"),
}


def complete(laptop, *words, **options) -> list[str]:
    """What is offered for the last of these words."""
    lines = laptop.lab("_complete", "--", *words, **options).splitlines()
    return [line.split("\t")[0] for line in lines]


def forget(laptop) -> None:
    """Forget the machine's jobs, as if they had never been listed."""
    laptop.run("rm", "-rf", "/home/ada/.cache/dl-remote-template/jobs")


def disconnect(laptop) -> None:
    laptop.run("sh", "-c", "rm -f ~/.cache/dl-remote-template/ssh/*; pkill ssh || true")


@pytest.mark.parametrize("shell", SHELLS)
def test_tab_completes_commands_machines_and_job_ids_in(shell, laptop):
    id = start(laptop, "--", "echo", "it", "ran")
    ended(laptop, id)
    program, line = SHELLS[shell]
    with in_terminal(laptop, program) as session:

        def type_until(text: str, wanted: str) -> None:
            type_in(session, text)
            shown = b""
            while wanted.encode() not in shown:
                ready = select.select([session.stdout], [], [], 60)[0]
                piece = os.read(session.stdout.fileno(), 1 << 16) if ready else b""
                assert piece, f"no {wanted!r} in {shown.decode()}"
                shown += piece

        type_until(f"{line}; echo rea''dy\n", "ready")
        type_until("lab logs 2\t\n", "it ran")
        type_until("lab jobs --ma\tg\t --js\t\n", f'"id": "{id}"')
        session.stdin.write("exit\n")
        session.communicate(timeout=120)


def test_bash_completes_a_machine_behind_an_equals_sign_and_leaves_files_to_itself(laptop):
    script = """
    eval "$(lab completion bash)"
    ask() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _lab lab; echo "${COMPREPLY[*]}"; }
    ask lab jobs --machine = g
    ask lab jobs --machine =
    ask lab export x READ
    complete -p lab
    """
    done = laptop.run("bash", "-c", script)
    assert done.stdout.splitlines() == ["gpu", "gpu", "", "complete -o default -F _lab lab"]


def test_fish_describes_each_command(laptop):
    script = "lab completion fish | source; complete -C 'lab j'; complete -C 'lab export x READ'"
    done = laptop.run("fish", "--no-config", "-c", script)
    assert done.stdout.splitlines() == ["jobs\tlist the jobs and their states", "README.md"]


def test_stop_is_offered_jobs_that_run_and_logs_all_by_id_and_name(laptop):
    over = start(laptop, "--name", "done", "--", "true")
    ended(laptop, over)
    id = start(laptop, "--name", "baseline", "--", "sh", "-c", "echo up; " + GO.format("/tmp/go"))
    logged(laptop, id, "up")
    job(laptop, id)
    assert complete(laptop, "stop", "") == [id, "baseline"]
    assert complete(laptop, "logs", "") == [id, over, "baseline", "done"]
    assert complete(laptop, "logs", id[:-2]) == [id]
    forget(laptop)  # on the open connection the machine is asked, which has a second to answer
    until(lambda: complete(laptop, "stop", "") == [id, "baseline"], what="an answer")
    forget(laptop)
    for one in (id, over):
        laptop.lab("stop", one)
    assert complete(laptop, "logs", "") == [id, over, "baseline", "done"], "the newest comes first"


def test_no_connection_is_opened_and_what_was_seen_last_is_offered(laptop):
    id = start(laptop, "--", "true")
    disconnect(laptop)
    laptop.run("touch", "-d", "-1 hour", *cached(laptop))
    laptop.hosts.traffic()
    assert complete(laptop, "logs", "") == [id]
    forget(laptop)
    assert complete(laptop, "logs", "") == []
    assert laptop.hosts.traffic().connections == 0


def cached(laptop) -> list[str]:
    inside = "/home/ada/.cache/dl-remote-template/jobs"
    return [f"{inside}/{path.name}" for path in (laptop.hosts.laptop.path(inside)).iterdir()]


def test_on_a_silent_connection_tab_asks_every_ten_seconds_and_waits_for_no_answer(laptop):
    id = start(laptop, "--", "true")
    (file,) = cached(laptop)
    laptop.run("touch", "-d", "-1 hour", file)
    laptop.hosts.drop()
    asked = [laptop.hosts.laptop.path(file).stat().st_mtime]
    for _ in range(6):
        # a command would wait longer than this test may take
        assert complete(laptop, "logs", "", env={"LAB_PATIENCE": "300"}) == [id]
        asked.append(laptop.hosts.laptop.path(file).stat().st_mtime)
    times = sorted(set(asked))
    assert len(times) > 1
    assert all(later - sooner >= 10 for sooner, later in itertools.pairwise(times))
