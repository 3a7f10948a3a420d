"""Set the new project up with its own bootstrap.py; keep the files whatever happens.

DL_TEMPLATE_SKIP=venv,kernel,git (any subset) switches steps off.
"""

import os
import sys

# True or False; no answer of the user comes into this file.
HAS_OUTPUT_DIR = "{{ '_output_dir' in cookiecutter }}" == "True"

SKIP = {"venv": "--no-venv", "kernel": "--no-kernel", "git": "--no-git"}


def throw_away_render():
    """Whether cruft renders into a temporary folder only to compare it and delete it.

    There a kernel would point to a deleted folder, and a .git or .venv would spoil cruft's
    patch. cruft sets no variable; what it leaves out of the context and where it renders tells.
    """
    if HAS_OUTPUT_DIR:
        return False
    import tempfile  # slow to import, and seldom needed

    parent = os.path.dirname(os.path.realpath(os.getcwd()))
    in_temp = os.path.dirname(parent) == os.path.realpath(tempfile.gettempdir())
    return in_temp and os.path.basename(parent).startswith("tmp")


def main():
    if os.path.exists("machines.local.toml.kept"):  # pre_gen_project.py set it aside
        os.replace("machines.local.toml.kept", "machines.local.toml")
    if throw_away_render():
        return
    wished = {step.strip() for step in os.environ.get("DL_TEMPLATE_SKIP", "").split(",")} - {""}
    for step in sorted(wished - set(SKIP)):
        print(f"DL_TEMPLATE_SKIP: {step!a} is unknown; the steps are {', '.join(SKIP)}.")
    flags = [flag for step, flag in SKIP.items() if step in wished]
    if len(flags) == len(SKIP):
        return
    import subprocess  # slow to import, and needed only now

    folder = os.path.basename(os.getcwd())
    command = [sys.executable, "bootstrap.py", *flags]
    # plain ASCII, as all that the hooks print: paths in the summary may have foreign letters
    environment = {**os.environ, "PYTHONIOENCODING": "ascii:backslashreplace"}
    sys.stdout.flush()
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, env=environment)
        finished = done.returncode == 0
    except (OSError, KeyboardInterrupt):
        finished = False
    if not finished or "venv" in wished:
        print(f"\nThe files are all in {folder}. To finish the set-up:")
        print(f"    cd {folder}\n    python3 bootstrap.py")
        return
    package = folder.replace("-", "_")
    print(f"\nReady. The first recorded run:\n    cd {folder}\n    . .venv/bin/activate")
    print(f"    python -m {package}.data prepare\n    python -m {package}.experiment")


if __name__ == "__main__":
    try:
        main()
        sys.stdout.flush()
    except OSError:  # nobody reads any more, as after `| head`
        os._exit(0)  # cookiecutter deletes the project of a hook that fails
