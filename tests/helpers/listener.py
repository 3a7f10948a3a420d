"""A command that can continue: it counts in a file, and ends with 75 at a step after USR1 or TERM.

Arguments: the file; how far to count; seconds for each step.
"""

import os
import signal
import sys
import time
from pathlib import Path

file, last, pause = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
job, attempt = Path(os.environ["LAB_JOB_FOLDER"]), os.environ["LAB_ATTEMPT"]
told = []
for number in (signal.SIGUSR1, signal.SIGTERM):
    signal.signal(number, lambda number, _: told.append(number))
(job / f"listens.{attempt}").touch()
step = int(file.read_text().split()[-1]) if file.exists() else 0
while step < last:
    step += 1
    if (job / "attempt").read_text().strip() != attempt:
        print(f"attempt {attempt} is over", flush=True)
        sys.exit(75)
    with file.open("a") as points:
        points.write(f"{attempt} {os.uname().nodename} {step}\n")
    time.sleep(pause)
    if told:
        print(f"attempt {attempt} writes its checkpoint, told by {told}", flush=True)
        sys.exit(143 if (job / "stop").exists() else 75)
