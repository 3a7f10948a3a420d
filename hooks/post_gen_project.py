"""Set the new project up with its own bootstrap.py; whatever happens, keep its files.

DL_TEMPLATE_SKIP=venv,kernel,git (any subset) switches steps off.
"""

import os
import sys

# True or False, so that no answer of the user gets into this file.
HAS_OUTPUT_DIR = "{{ '_output_dir' in cookiecutter }}" == "True"

SKIP = {"venv": "--no-venv", "kernel": "--no-kernel", "git": "--no-git"}


def is_temporary():
    """Return whether cruft renders into a temporary folder, only to compare it and delete it.

    There a kernel would point to a deleted folder, and a .git or .venv would spoil cruft's patch.
    cruft sets no variable, but gives no _output_dir, and renders into a folder of tempfile's.
    """
    if HAS_OUTPUT_DIR:
        return False
    import tempfile  # slow to import, and rarely needed

    parent = os.path.dirname(os.path.realpath(os.getcwd()))
    in_temp = os.path.dirname(parent) == os.path.realpath(tempfile.gettempdir())
    return in_temp and os.path.basename(parent).startswith("tmp")


def main():
    if os.path.exists("machines.local.toml.saved"):  # pre_gen_project.py renamed it
        os.replace("machines.local.toml.saved", "machines.local.toml")
    if is_temporary():
        return
    skipped = {step.strip() for step in os.environ.get("DL_TEMPLATE_SKIP", "").split(",")} - {""}
    for step in sorted(skipped - set(SKIP)):
        print(f"DL_TEMPLATE_SKIP: {step!a} is unknown; the steps are {', '.join(SKIP)}.")
    flags = [flag for step, flag in SKIP.items() if step in skipped]
    if len(flags) == len(SKIP):
        return
    import subprocess  # slow to import, and needed only now

    folder = os.path.basename(os.getcwd())
    command = [sys.executable, "bootstrap.py", *flags]
    # paths may have other characters, and hooks print only plain ASCII
    environment = {**os.environ, "PYTHONIOENCODING": "ascii:backslashreplace"}
    sys.stdout.flush()
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, env=environment)
        finished = done.returncode == 0
    except (OSError, KeyboardInterrupt):
        finished = False
    if not finished or "venv" in skipped:
        print(f"\nAll files are in {folder}. To finish the set-up:")
        print(f"    cd {folder}\n    python3 bootstrap.py")
        return
    package = folder.replace("-", "_")
    print(f"\nReady. The first recorded run:\n    cd {folder}\n    . .venv/bin/activate")
    print(f"    python -m {package}.data prepare\n    python -m {package}.experiment")


if __name__ == "__main__":
    try:
        main()
        sys.stdout.flush()
    except OSError:  # nobody reads the output, as after `| head`
        os._exit(0)  # if a hook fails, cookiecutter deletes the project
