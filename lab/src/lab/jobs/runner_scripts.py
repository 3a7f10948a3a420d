"""The scripts that jobs run on a machine, sent once to `folder`/lab/<hash>/.

A job keeps its own copy. The scripts in its checkout may be of an old commit, and this computer may
have another version of lab by the time the job runs.
"""

import functools
import hashlib

from lab.ssh import framing

SCRIPTS = ["environment.sh", "gpus.sh", "jobs.sh", "queue.sh", "runner.sh", "view.sh"]
SCRIPTS += ["job_command.sh", "enter_machine.sh", "login_shell.bash", "machine_prelude.bash"]
SCRIPTS += ["left_files.sh"]
SLURM_SCRIPTS = ["environment.sh", "job_command.sh", "enter_machine.sh", "login_shell.bash"]
SLURM_SCRIPTS += ["left_files.sh", "machine_prelude.bash"]
SLURM_SCRIPTS += ["slurm_batch.sh", "slurm_clear.sh", "slurm_step.sh"]
MISSING = 76  # exit code of runner_scripts.sh: the machine lacks them, and they were not sent


@functools.cache
def read_scripts(scheduler: str = "") -> dict[str, str]:
    """Return the text of each script by its name."""
    names = SLURM_SCRIPTS if scheduler == "slurm" else SCRIPTS
    return {name: framing.read_script(name) for name in names}


def make_variables(scheduler: str = "", send: bool = False) -> dict[str, str]:
    """Return the variables of runner_scripts.sh: a hash and, with `send`, an archive of them."""
    texts = read_scripts(scheduler)
    digest = hashlib.sha256(repr(texts).encode()).hexdigest()[:12]
    return {"scripts": digest, "archive": _pack(texts) if send else ""}


def _pack(texts: dict[str, str]) -> str:
    """Return a tar file of them in base64; pack_command() compresses it with the script."""
    import base64
    import io
    import tarfile  # slow to import

    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, text in texts.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))
    return base64.b64encode(packed.getvalue()).decode()
