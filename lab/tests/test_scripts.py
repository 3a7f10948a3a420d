"""Scripts of lab run locally by sh, with programs that hold them up at the moment that matters."""

import hashlib
import io
import json
import os
import shlex
import shutil
import subprocess
import time

import pytest

from lab.ssh import framing
from lab.ssh.machines import Machine
from lab.workcopy import workspace

GIT = shutil.which("git")
IDENTITY = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]


@pytest.fixture
def machine(tmp_path):
    """A machine: its home folder, with programs of a test in .local/bin, which is first in PATH."""
    return Home(tmp_path)


class Home:
    def __init__(self, path):
        self.path, self.folder = path, path / "lab/x"
        self.folder.mkdir(parents=True)

    def program(self, name: str, text: str) -> None:
        path = self.path / ".local/bin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def start(self, script: str, stdin: bytes = b"", **variables) -> subprocess.Popen:
        about = Machine(name="gpu", ssh="gpu", folder="lab/x")
        source = framing.assemble_script(script, variables, about)
        environment = {"HOME": str(self.path), "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
        process = subprocess.Popen(
            ["sh", "-c", source],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )
        process.stdin.write(stdin)
        process.stdin.close()
        process.stdin = None
        return process

    def run(self, script: str, stdin: bytes = b"", **variables) -> tuple[int, str]:
        """The exit code, and what it printed on both streams."""
        return finish(self.start(script, stdin, **variables))


def finish(process: subprocess.Popen) -> tuple[int, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, (out + err).decode("utf-8", "replace")


def wait_for(condition) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


# --- sync.sh --------------------------------------------------------------------------------------


@pytest.fixture
def laptop(tmp_path):
    """A function that commits these files, and returns the commit and a bundle of it."""
    folder = tmp_path / "laptop"

    def git(*words: str) -> str:
        command = [GIT, "-C", str(folder), *IDENTITY, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    subprocess.run([GIT, "init", "--quiet", folder], check=True)

    def commit(**files: str) -> tuple[str, bytes]:
        for name, text in files.items():
            (folder / name).write_text(text)
        git("add", "--all")
        git("commit", "--quiet", "-m", "a state")
        head = git("rev-parse", "HEAD")
        git("update-ref", f"refs/lab/snapshots/{head}", head)
        git("bundle", "create", "--quiet", "bundle", f"refs/lab/snapshots/{head}")
        bundle = folder / "bundle"
        content = bundle.read_bytes()
        bundle.unlink()
        return head, content

    return commit


def sync(machine, commit: str, bundle: bytes) -> tuple[int, str]:
    names = {"back": "", "known": "", "now": "20260101-000000"}
    return machine.run("sync.sh", bundle, commit=commit, sent="yes", base="", **names)


def test_a_file_that_is_edited_while_lab_sync_works_is_not_overwritten(machine, laptop):
    code, said = sync(machine, *laptop(file="first"))
    assert code == 0 and "state made" in said
    edited = machine.folder / "work/file"
    # the user saves the file just after lab has saved the edits, before it writes
    save = f"printf mine >{shlex.quote(str(edited))}"
    machine.program("git", f'case "$*" in *read-tree*) {save} ;; esac\nexec {GIT} "$@"')
    code, said = sync(machine, *laptop(file="second"))
    assert edited.read_text() == "mine"
    assert code == 1 and "is being edited right now" in said
    machine.program("git", f'exec {GIT} "$@"')
    code, said = sync(machine, *laptop(file="third"))
    assert code == 0 and "edits 20260101-000000-" in said and edited.read_text() == "third"


def test_the_laptop_reads_what_sync_prints_and_the_bundle_behind_it(machine, laptop):
    commit, bundle = laptop(file="first")
    sync(machine, commit, bundle)
    work = machine.folder / "work"
    (work / "notes ü.txt").write_text("edited there")
    subprocess.run([GIT, "init", "--quiet", work / "some library"], check=True)
    identity = [GIT, "-C", str(work / "some library"), *IDENTITY]
    subprocess.run([*identity, "commit", "--quiet", "--allow-empty", "-m", "x"], check=True)
    names = {"back": "yes", "known": "", "now": "20260101-000000", "base": commit}
    out, _ = machine.start("sync.sh", commit=commit, sent="", **names).communicate(timeout=60)
    answer = io.BytesIO(out)
    facts = workspace.read_facts(answer)
    assert (facts["state"], facts["nested"]) == (["saved"], ["some library"])
    assert [name.rpartition("-")[0] for name in facts["edits"]] == ["20260101-000000"]
    assert answer.read().startswith(b"# v2 git bundle")


# --- install_dataset.sh ---------------------------------------------------------------------------


def stage(machine, name: str, **files: str) -> dict[str, object]:
    """A dataset that has arrived in a staging folder; what install_dataset.sh is told of it."""
    folder = machine.folder / "data" / name
    hashes = {path: hashlib.sha256(text.encode()).hexdigest() for path, text in files.items()}
    manifest = json.dumps({"files": hashes}).encode()
    for path, text in files.items():
        (folder / "files" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "files" / path).write_text(text)
    (folder / "files/manifest.json").write_bytes(manifest)
    lines = "".join(f"{digest}  {path}\n" for path, digest in hashes.items())
    digest = hashlib.sha256(manifest).hexdigest()
    return {
        "stdin": lines.encode(),
        "dataset": "pets",
        "stage": str(folder),
        "manifest": digest,
    }


def test_of_two_different_datasets_that_arrive_at_once_one_is_complete_and_the_other_refused(
    machine,
):
    first = stage(machine, "first", **{"train/a": "a", "val/a": "a"})
    second = stage(machine, "second", **{"train/b": "b", "val/b": "b"})
    here = shlex.quote(str(machine.path))
    # the first has seen no other, and is held until the second one waits, or has ended
    machine.program(
        "sha256sum",
        f'if [ "$1" = -c ] && mkdir {here}/held 2>/dev/null; then\n'
        f'    until [ -e {here}/go ]; do sleep 0.01; done\nfi\nexec /usr/bin/sha256sum "$@"',
    )
    one = machine.start("install_dataset.sh", **first)
    wait_for((machine.path / "held").exists)
    machine.program("flock", f'touch {here}/waits\nexec {shutil.which("flock")} "$@"')
    two = machine.start("install_dataset.sh", **second)
    wait_for(lambda: (machine.path / "waits").exists() or two.poll() is not None)
    (machine.path / "go").touch()
    (code, said), (other, refused) = finish(one), finish(two)
    assert (code, said) == (0, "")
    assert other == 1 and "a different dataset pets" in refused
    pets = machine.folder / "data/pets"
    found = {str(path.relative_to(pets)) for path in pets.rglob("*") if path.is_file()}
    assert found == {"train/a", "val/a", "manifest.json"}
