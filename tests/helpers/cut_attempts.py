"""Plays the batch script of a job: attempts of one run, each in a process that is cut somewhere.

Runs with a project's Python: cut_attempts.py FOLDER SEED CUTS. Each attempt is a fork, so torch is
imported once. FOLDER gets data, runs, jobs and report.json: for each job its run and how each
attempt was cut and ended, the run that nothing has cut, and a job whose processes all got signals.
"""

import gc
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from random import Random

folder, seed, cuts = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
os.environ |= {"LAB_DATA": str(folder / "data"), "LAB_RUNS": str(folder / "runs")}

gc.disable()  # while torch is imported, where nothing is garbage
import PIL.Image  # noqa: E402
import torch  # noqa: E402
import torch._dynamo  # noqa: E402, F401 # what an optimizer imports, as long as all the rest
from my_experiment import data, training  # noqa: E402
from my_experiment.experiment import ex  # noqa: E402

from lab import tracking  # noqa: E402

WORDS = ["with", "width=2", "epochs=5", "batch_size=16", "shift=1", "patience=0", "lr=0.02"]
SIGNALLED = ["with", "width=2", "epochs=3", "batch_size=16", "patience=0", "workers=2"]
EVENTS = 60  # of an attempt of a few steps, about: opening, renaming and removing a file
WRITING = {"os.rename", "os.remove", "os.rmdir", "os.mkdir"}
draw = Random(seed)


def note_steps(cut) -> None:
    """Send this process a signal at the step that was drawn."""
    step, taken = training.train_step, 0

    def cut_step(*arguments):
        nonlocal taken
        taken += 1
        if taken == cut:
            os.kill(os.getpid(), number)
        return step(*arguments)

    number, cut = signal.Signals[cut[0]], cut[1]
    training.train_step = cut_step


def note_events(cut) -> None:
    """Send this process a signal just before the file operation that was drawn."""
    owner, count, (name, cut) = os.getpid(), 0, cut

    def hook(event, arguments):
        nonlocal count
        opens = event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)
        is_one = (opens or event in WRITING) and str(arguments[0]).startswith(str(folder))
        if is_one and os.getpid() == owner:
            count += 1
            if count == cut:
                os.kill(owner, signal.Signals[name])

    sys.addaudithook(hook)


def wait_after_epoch(cut) -> None:
    """Let this process wait for a signal once it has said that an epoch is finished."""
    write, (number,) = training.tqdm.write, cut

    def write_and_wait(text, *arguments, **options):
        write(text, *arguments, **options)
        while f"epoch {number}/" in text and not tracking.should_stop():
            time.sleep(0.01)

    training.tqdm.write = staticmethod(write_and_wait)


def start(job: Path | None, attempt: int, cut=None, words=WORDS, output=None) -> int:
    """Start an attempt in a process and a session of its own; returns its pid."""
    if job:
        (job / "attempt.new").write_text(f"{attempt}\n")
        (job / "attempt.new").replace(job / "attempt")
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        os.setsid()
        log = (job or folder) / "output.log"
        output = output or os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        if job:
            os.environ |= {"LAB_JOB_FOLDER": str(job), "LAB_ATTEMPT": str(attempt)}
        if cut:
            kinds = {"step": note_steps, "event": note_events, "epoch": wait_after_epoch}
            kinds[cut[0]](cut[1:])
        ex.run_commandline(["experiment", *words])
        code = 0
    except SystemExit as error:
        code = error.code
    except BaseException:  # noqa: BLE001 - a fork of this program must not go on with it
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def wait(pid: int) -> str:
    """Wait until a process has ended or is stopped; returns how."""
    _, status = os.waitpid(pid, os.WUNTRACED)
    if os.WIFSTOPPED(status):
        return "stopped"
    code = os.waitstatus_to_exitcode(status)
    return signal.Signals(-code).name if code < 0 else str(code)


def draw_cut():
    """Draw where and how an attempt is cut."""
    kind = draw.choice(["step", "event"])
    names = ["SIGKILL", "SIGSTOP"]
    if kind == "step":
        names += ["SIGUSR1", "SIGTERM"]
    most = 12 if kind == "step" else EVENTS
    return kind, draw.choice(names), draw.randint(1, most)


def run_job(job: Path, left: int, first: int) -> dict:
    """Run a job to its end, in attempts, of which at most `left` are cut; returns what happened.

    The first attempt stands still at the event number `first`, while it makes its record.
    """
    job.mkdir(parents=True)
    told: list = []
    frozen, attempt = None, 0
    while True:
        attempt += 1
        cut = draw_cut() if len(told) < left else None
        if attempt == 1:
            cut = ("event", "SIGSTOP", first)
        pid = start(job, attempt, cut)
        ended = wait(pid)
        if frozen:  # the attempt before, which was alive all the time
            os.kill(frozen[0], signal.SIGCONT)
            told.append([*frozen[1], wait(frozen[0])])
        frozen = (pid, cut) if ended == "stopped" else None
        if not frozen:
            told.append([*(cut or ["nothing", "none", 0]), ended])
        if ended == "0" or not cut:  # what nothing has cut and still fails would fail forever
            return {"attempts": attempt, "told": told}


def signal_all(job: Path) -> dict:
    """Run a job with signals to all of its processes, as a step of Slurm gets them.

    Also its DataLoader workers and the copier of its output get them, at the end of an epoch.
    """
    job.mkdir(parents=True)
    ends, text = [], ""
    for attempt, number in enumerate((signal.SIGUSR1, signal.SIGTERM, None), 1):
        reading, writing = os.pipe()
        cut = ("epoch", attempt) if number else None
        pid = start(job, attempt, cut, SIGNALLED, writing)
        os.close(writing)
        with open(reading) as lines:
            for line in lines:
                text += line
                if number and f"epoch {attempt}/3" in line:
                    os.killpg(pid, number)
        ends.append(wait(pid))
    return {"ends": ends, "output": text}


def list_runs() -> set[str]:
    return {path.name for path in (folder / "runs").glob("2*")}


gc.enable()
gc.freeze()  # else each fork would look through all of torch, and copy it by that
torch.set_num_threads(1)
PIL.Image.init()
if not (folder / "data").exists():
    samples = data.load_digits()[:180]
    data.write_dataset("digits", "some digits", samples, seed=0, val=0.2, test=0.2)
report = {"signalled": signal_all(folder / "jobs/signalled"), "jobs": []}
(report["signalled"]["run"],) = list_runs()
training.LOG_EVERY = 1
report["whole"] = wait(start(None, 0))
(report["run"],) = list_runs() - {report["signalled"]["run"]}
while cuts > 0:
    known = list_runs()
    began = time.monotonic()
    number = len(report["jobs"])
    job = run_job(folder / "jobs" / str(number), cuts, number + 1)
    job["runs"] = sorted(list_runs() - known)
    job["seconds"] = time.monotonic() - began
    report["jobs"].append(job)
    cuts -= len(job["told"])
(folder / "report.json").write_text(json.dumps(report, indent=1, default=str))
