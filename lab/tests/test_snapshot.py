"""A snapshot holds exactly the working tree, and leaves no trace on the user's own git."""

import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import lab
from lab.code import sending
from lab.code import snapshot as snapshots
from lab.environment.repository import FILTER, NOTEBOOK_FILTER
from lab.ground import git, project
from lab.ground.errors import LabError

PACKAGE = Path(lab.__file__).parent
LARGE = 26_000_000
HOOKS = ["pre-commit", "post-commit", "reference-transaction", "post-index-change", "post-checkout"]


@dataclass(frozen=True)
class Repository:
    """A git repository that is the project."""

    path: Path

    def git(self, *arguments, check=True) -> str:
        done = subprocess.run(["git", *arguments], cwd=self.path, capture_output=True)
        assert not check or done.returncode == 0, done.stderr
        return os.fsdecode(done.stdout).rstrip("\n")

    def take(self, **options):
        return snapshots.take(**options)

    def refused(self, **options) -> str:
        """The one line that a snapshot is refused with; nothing was made, and nothing is left."""
        made = [["count-objects"], ["for-each-ref", "refs/lab"]]
        before = self.state(), [self.git(*command) for command in made]
        with pytest.raises(LabError) as caught:
            self.take(**options)
        assert (self.state(), [self.git(*command) for command in made]) == before
        assert not left_over() and "\n" not in str(caught.value)
        return str(caught.value)

    def write(self, files: dict[str, bytes | str]) -> None:
        for name, content in files.items():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def commit(self, files: dict[str, bytes | str]) -> None:
        self.write(files)
        self.git("add", "--all", "--force")
        self.git("commit", "--quiet", "--no-verify", "--allow-empty", "--message", "A commit")

    def large(self, name: str, size=LARGE) -> None:
        (self.path / name).touch()
        os.truncate(self.path / name, size)

    def files(self, commit: str) -> dict[str, bytes]:
        """What a commit holds."""
        listed = [one.split("\t", 1) for one in self.git("ls-tree", "-rz", commit).split("\0")[:-1]]
        blobs = "".join(f"{about.split()[2]}\n" for about, _ in listed).encode()
        command = ["git", "cat-file", "--batch"]
        done = subprocess.run(command, input=blobs, cwd=self.path, stdout=subprocess.PIPE)
        answer, files = io.BytesIO(done.stdout), {}
        for _, name in listed:
            files[name] = answer.read(int(answer.readline().split()[2]))
            answer.read(1)  # the end of line behind each
        return files

    def state(self) -> dict:
        """Everything that is the user's: working tree and git's own files, with their dates."""
        state = {"status": self.git("--no-optional-locks", "status", "--porcelain", "--branch")}
        state["stash"] = self.git("stash", "list")
        for path in self.path.rglob("*"):
            name = path.relative_to(self.path).as_posix()
            ours = name.startswith((".git/objects", ".git/refs/lab"))
            if path.is_file() and not ours and path.stat().st_size < LARGE:
                state[name] = path.lstat().st_mtime_ns, path.read_bytes()
        return state


def left_over() -> list[str]:
    return os.listdir(tempfile.gettempdir())


@pytest.fixture
def fresh(home, tmp_path, monkeypatch) -> Repository:
    """A repository without commits; temporary files have a folder of their own beside it."""
    path = (tmp_path / "project").resolve()
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(project, "root", lambda: path)
    subprocess.run(["git", "-c", "init.defaultBranch=main", "init", "--quiet", path], check=True)
    return Repository(path)


@pytest.fixture
def repository(fresh) -> Repository:
    """A repository with one commit and a clean tree."""
    fresh.commit({".gitignore": "/ignored/\n*.tmp\n", "a.py": "a = 1\n", "b.py": "b = 1\n"})
    return fresh


@pytest.fixture
def dirty(repository) -> Repository:
    """The same with work of every kind in it."""
    repository.commit({"c.py": "c\n", "d.py": "d\n", "e.py": "e\n", "forced.tmp": "1\n"})
    repository.commit({"folder/inside.py": "i\n", "file": "f\n"})
    repository.write({"a.py": "stashed\n"})
    repository.git("stash", "push", "--quiet")
    repository.write({"a.py": "a = 2\n", "b.py": "staged\n", "d.py": "d\n" * 2})
    repository.git("add", "b.py", "d.py")
    repository.write({"d.py": "d\n" * 3, "forced.tmp": "2\n", "ignored/x": "no\n", "y.tmp": "no\n"})
    repository.git("mv", "e.py", "moved.py")
    repository.write({"new/folder/f.py": "f\n", "promised.py": "p\n"})
    repository.git("add", "--intent-to-add", "promised.py")
    (repository.path / "c.py").unlink()
    (repository.path / "link").symlink_to("a.py")
    shutil.rmtree(repository.path / "folder")
    (repository.path / "file").unlink()
    repository.write({"folder": "a file now\n", "file/now.py": "a folder\n"})
    return repository


DIRTY = {
    ".gitignore": b"/ignored/\n*.tmp\n",
    "a.py": b"a = 2\n",
    "b.py": b"staged\n",
    "d.py": b"d\n" * 3,
    "file/now.py": b"a folder\n",
    "folder": b"a file now\n",
    "forced.tmp": b"2\n",
    "link": b"a.py",
    "moved.py": b"e\n",
    "new/folder/f.py": b"f\n",
    "promised.py": b"p\n",
}


def test_a_snapshot_holds_everything_that_is_not_ignored(dirty):
    snapshot = dirty.take()
    assert dirty.files(snapshot.commit) == DIRTY
    head = dirty.git("rev-parse", "HEAD")
    assert (snapshot.parent, snapshot.dirty, snapshot.branch) == (head, True, "main")
    assert dirty.git("rev-parse", f"{snapshot.commit}^@") == head


def test_head_index_stash_status_and_working_tree_stay_as_they_are(dirty):
    before = dirty.state()
    snapshot = dirty.take()
    assert dirty.state() == before and before["stash"]
    assert dirty.files(snapshot.commit) == DIRTY
    assert not left_over()


def test_the_same_tree_on_the_same_head_gives_the_same_commit(dirty, monkeypatch):
    first = dirty.take()
    dirty.write({"a.py": "a = 3\n"})
    second = dirty.take()
    dirty.write({"a.py": "a = 2\n"})
    dirty.git("config", "user.name", "Somebody Else")
    dirty.git("config", "i18n.commitEncoding", "ISO-8859-1")
    monkeypatch.setenv("GIT_COMMITTER_DATE", "@2000000000 +0500")
    dirty.git("add", "--all")
    assert dirty.take() == first
    assert second.commit != first.commit
    dirty.git("commit", "--quiet", "--amend", "--message", "Another commit")
    dirty.write({"a.py": "a = 3\n"})
    assert dirty.take().commit != second.commit, "on another HEAD"


def test_a_tree_that_equals_head_gives_head_itself(repository):
    head = repository.git("rev-parse", "HEAD")
    (repository.path / "a.py").touch()
    repository.write({"ignored/x": "1"})
    snapshot = repository.take()
    assert (snapshot.commit, snapshot.parent, snapshot.dirty) == (head, head, False)
    assert snapshots.diff(snapshot) == ""
    repository.write({"a.py": "a = 2\n"})
    repository.git("add", "a.py")
    repository.write({"a.py": "a = 1\n"})
    assert repository.take() == snapshot, "what is only staged did not run"


def test_snapshots_survive_garbage_collection(repository):
    clean = repository.take()
    repository.write({"a.py": "a = 2\n"})
    dirty = repository.take()
    repository.git("commit", "--quiet", "--all", "--amend", "--message", "HEAD was replaced")
    repository.git("reflog", "expire", "--expire=all", "--all")
    repository.git("gc", "--quiet", "--prune=now")
    assert repository.files(clean.commit)["a.py"] == b"a = 1\n"
    assert repository.files(dirty.commit)["a.py"] == b"a = 2\n"


HOSTILE = {
    "color.ui": "always",
    "diff.noprefix": "true",
    "diff.external": "false",
    "diff.relative": "true",
    "diff.context": "0",
    "diff.odd.command": "false",
    "diff.odd.textconv": "false",
    "status.branch": "false",
    "status.showUntrackedFiles": "no",
    "status.relativePaths": "false",
    "core.quotePath": "false",
    "core.logAllRefUpdates": "always",
    "core.untrackedCache": "true",
    "core.fsmonitor": "false",
    "core.splitIndex": "true",
    "add.ignoreErrors": "true",
    "merge.conflictStyle": "diff3",
    "user.useConfigOnly": "true",
}


def test_diff_is_what_git_diff_shows_whatever_the_user_has_set(dirty):
    snapshot = dirty.take()
    shown = dirty.git("diff", "HEAD", snapshot.commit, "--no-renames") + "\n"
    for name, value in HOSTILE.items():
        dirty.git("config", name, value)
    dirty.write({".git/info/attributes": "*.py diff=odd\n"})
    assert snapshots.diff(snapshot) == shown
    assert "-a = 1\n+a = 2\n" in shown and "+++ b/new/folder/f.py" in shown
    assert dirty.take() == snapshot


def test_diff_is_cut_off_at_its_limit_between_two_lines(repository):
    repository.write({"a.py": "ü = 1\n" * 100_000})
    snapshot = repository.take()
    whole = snapshots.diff(snapshot)
    assert whole.count("+ü = 1\n") == 100_000
    short = snapshots.diff(snapshot, limit=5_000)
    *lines, last = short.splitlines(keepends=True)
    assert whole.startswith("".join(lines)) and lines[-1] == "+ü = 1\n"
    assert 4_980 < len("".join(lines).encode()) <= 5_000
    assert last == f"... cut off; all of it: git show {snapshot.commit}\n"


def test_diff_of_a_snapshot_without_parent_is_everything(fresh):
    fresh.write({"a.py": b"caf\xe9\n"})
    assert "+caf\\xe9\n" in snapshots.diff(fresh.take())


def test_diff_of_an_unknown_snapshot_is_one_clear_line(repository):
    unknown = snapshots.Snapshot("1" * 40, "2" * 40, True, "main", ".")
    with pytest.raises(LabError, match="^git failed: .*1111.*$"):
        snapshots.diff(unknown)


@pytest.mark.parametrize("how", ["untracked", "changed", "staged"])
def test_a_large_file_is_refused_by_name_before_anything_is_made(repository, how):
    if how == "changed":
        repository.commit({"model.pt": "small"})
    repository.large("model.pt")
    if how == "staged":
        repository.git("add", "model.pt")
    said = repository.refused(to_send=how == "untracked")
    assert "model.pt (26 MB)" in said and "above 25 MB" in said and ".gitignore" in said


def test_a_large_file_that_git_does_not_know_keeps_no_record_from_having_its_code(
    repository, capsys
):
    repository.large("model.pt")
    head = repository.take()
    assert not head.dirty and "model.pt (26 MB)" in head.problem
    assert ".gitignore" in capsys.readouterr().err
    repository.write({"new.py": "1"})
    taken = repository.take()
    files = repository.files(taken.commit)
    assert "new.py" in files and "model.pt" not in files and "model.pt" in taken.problem
    (repository.path / "model.pt").unlink()
    assert repository.take() == taken._replace(problem="")


@pytest.mark.slow
def test_large_files_that_are_ignored_or_committed_or_allowed_pass(repository):
    repository.large("data.bin")
    repository.commit({})
    repository.write({"a.py": "a = 2\n"})
    (repository.path / "link").symlink_to("data.bin")
    (repository.path / "ignored").mkdir()
    repository.large("ignored/model.pt")
    assert repository.take().dirty
    repository.large("more.bin")
    assert "more.bin" in repository.files(repository.take(limit_mb=26).commit)
    assert "above 0.5 MB" in repository.refused(limit_mb=0.5, to_send=True)


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 26000000\n"


def test_what_git_lfs_turns_into_a_pointer_passes(repository):
    repository.write({".gitattributes": "*.pt filter=lfs diff=lfs merge=lfs -text\n"})
    repository.write({"pointer.pt": POINTER})
    repository.large("model one.pt")
    assert "model one.pt (26 MB)" in repository.refused(to_send=True), "git-lfs is not installed"
    repository.write({"pointer": POINTER})
    repository.git("config", "filter.lfs.clean", "cat >/dev/null; cat pointer")
    repository.git("config", "filter.lfs.required", "true")
    files = repository.files(repository.take().commit)
    assert files["model one.pt"] == files["pointer.pt"] == POINTER.encode()


def test_what_is_sent_has_the_content_of_git_lfs_files_and_none_that_it_has_not_brought(repository):
    repository.git("config", "filter.lfs.clean", "cat >/dev/null; printf version")
    repository.git("config", "filter.lfs.required", "true")
    repository.commit({".gitattributes": "*.pt filter=lfs -text\n", "a.pt": "content\r\n"})
    (repository.path / "a.pt").chmod(0o755)
    repository.git("update-index", "--chmod=+x", "a.pt")
    before = repository.state()
    assert repository.files(repository.take().commit)["a.pt"] == b"version"
    sent = repository.take(to_send=True)
    assert repository.files(sent.commit)["a.pt"] == b"content\r\n"
    assert repository.git("ls-tree", sent.commit, "a.pt").startswith("100755 ")
    assert repository.take(to_send=True) == sent and repository.state() == before
    repository.large("b.pt")
    with pytest.raises(LabError, match=r": b\.pt \(26 MB\); "):
        repository.take(to_send=True)
    repository.write({"b.pt": POINTER})
    with pytest.raises(LabError, match=r": b\.pt; run git lfs pull"):
        repository.take(to_send=True)


@pytest.mark.parametrize("command", ["merge", "rebase", "cherry-pick", "stash"])
def test_a_conflict_is_said_where_the_tree_is_sent(repository, capsys, command):
    repository.commit({"a.txt": "one\n", "b.txt": "b"})
    repository.git("branch", "other")
    repository.commit({"a.txt": "two\n"})
    repository.git("checkout", "-q", "other")
    if command == "stash":
        repository.write({"a.txt": "three\n"})
        repository.git("stash")
        repository.git("checkout", "-q", "-")
        repository.git("stash", "pop", check=False)
    else:
        repository.commit({"a.txt": "three\n"})
        repository.git(command, "@{-1}", check=False)
    repository.take()
    assert capsys.readouterr().err == "", "a run on this computer is recorded as it is"
    assert b"<<<<<<<" in repository.files(repository.take(to_send=True).commit)["a.txt"]
    said = capsys.readouterr().err
    assert "a.txt" in said and "b.txt" not in said
    assert command in said or command == "stash"
    repository.git("add", "a.txt")
    repository.take(to_send=True)
    said = capsys.readouterr().err
    assert "a.txt" not in said and (command in said) == (command != "stash")


def test_what_a_filter_leaves_large_is_refused(repository):
    repository.write({".gitattributes": "*.pt filter=same\n"})
    repository.git("config", "filter.same.clean", "cat")
    repository.large("model.pt")
    with pytest.raises(LabError, match=r"model\.pt \(26 MB\)"):
        repository.take()
    assert repository.git("for-each-ref", "refs/lab") == ""


def test_submodules_and_repositories_inside_are_refused_by_name(repository, tmp_path):
    other = tmp_path / "other"
    subprocess.run(["git", "clone", "--quiet", repository.path, other], check=True)
    allow = ["-c", "protocol.file.allow=always"]
    repository.git(*allow, "submodule", "--quiet", "add", str(other), "third party")
    repository.git("commit", "--quiet", "--message", "A submodule")
    shutil.copytree(other, repository.path / "copied")
    shutil.copytree(other, repository.path / "ignored/copied")
    subprocess.run(["git", "init", "--quiet", repository.path / "new/empty"], check=True)
    said = repository.refused()
    assert "third party" in said and "copied/" in said and "new/empty/" in said
    assert "ignored" not in said
    repository.git("rm", "--quiet", "--cached", "third party")
    for name in ("third party/.git", "copied/.git", "new/empty/.git"):
        path = repository.path / name
        path.unlink() if path.is_file() else shutil.rmtree(path)
    assert "copied/a.py" in repository.files(repository.take().commit)


def test_an_environment_that_git_does_not_ignore_is_left_out_and_named(repository, capsys):
    """Not even its large libraries, or repositories inside, prevent saving the code."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "env"], cwd=repository.path)
    (repository.path / "env/.gitignore").unlink(missing_ok=True)  # later versions write one
    repository.write({"conda/conda-meta/history": "", "conda/bin/python": "", "train.py": "1"})
    for name in ("env/lib/libtorch.so", "conda/lib/libcuda.so"):
        (repository.path / name).parent.mkdir(exist_ok=True)
        repository.large(name)
    subprocess.run(["git", "init", "-q", "env/src/edited"], cwd=repository.path, check=True)
    repository.write({"env/src/edited/a": ""})
    files = repository.files(repository.take().commit)
    assert files["train.py"] == b"1"
    assert not [name for name in files if name.startswith(("env/", "conda/"))]
    said = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in said] == ["conda", "env"]
    assert "/conda/ to .gitignore" in said[0] and "/env/ to .gitignore" in said[1]
    assert repository.take().commit == repository.take().commit
    repository.write({".gitignore": "/conda/\n/env/\n"})
    capsys.readouterr()
    assert repository.files(repository.take().commit).keys() == files.keys() | {".gitignore"}
    assert not capsys.readouterr().err
    shutil.rmtree(repository.path / "env/src")
    for name in ("env/lib/libtorch.so", "conda/lib/libcuda.so"):
        (repository.path / name).unlink()
    # one that git has is the user's choice, and one around the code holds it
    repository.commit({"mine/pyvenv.cfg": "", "pyvenv.cfg": ""})
    repository.write({"mine/new": "", "new": ""})
    assert {"mine/new", "new"} <= repository.files(repository.take().commit).keys()


def test_many_refused_files_are_one_short_line(repository):
    repository.write({f"{number:02}\n.bin": "12" for number in range(30)})
    said = repository.refused(limit_mb=0.000001, to_send=True)
    assert "'00\\n.bin (0 MB)'" in said and said.count(".bin") == 10 and "and 20 more" in said


def test_a_repository_without_commits_gives_a_commit_without_parent(fresh):
    empty = fresh.take()
    assert (empty.parent, empty.dirty, empty.branch) == (None, True, "main")
    assert fresh.files(empty.commit) == {}
    fresh.write({"a.py": "a\n", "b.py": "b\n"})
    fresh.git("add", "a.py")
    before = fresh.state()
    snapshot = fresh.take()
    assert fresh.state() == before
    assert fresh.files(snapshot.commit) == {"a.py": b"a\n", "b.py": b"b\n"}
    assert fresh.git("rev-parse", f"{snapshot.commit}^@") == ""
    assert fresh.take() == snapshot


def test_a_linked_worktree_gives_its_own_tree(dirty, tmp_path, monkeypatch):
    dirty = replace(dirty, path=dirty.path.rename(tmp_path / "a\nrepository"))
    there = (tmp_path / "there").resolve()
    dirty.git("worktree", "add", "--quiet", "-b", "side/branch", str(there))
    monkeypatch.setattr(project, "root", lambda: there)
    (there / "a.py").write_text("there\n")
    (there / "staged").write_text("1\n")
    subprocess.run(["git", "add", "staged"], cwd=there, check=True)
    before = dirty.state()
    snapshot = dirty.take()
    assert dirty.state() == before
    files = dirty.files(snapshot.commit)
    assert (files["a.py"], files["staged"]) == (b"there\n", b"1\n") and "moved.py" not in files
    assert files["forced.tmp"] == b"1\n", "tracked although it is ignored"
    assert (snapshot.branch, snapshot.folder) == ("side/branch", ".")


def test_a_detached_head_is_the_parent_and_has_no_branch(dirty):
    dirty.git("checkout", "--quiet", "--detach")
    snapshot = dirty.take()
    assert (snapshot.parent, snapshot.branch) == (dirty.git("rev-parse", "HEAD"), None)
    assert dirty.files(snapshot.commit) == DIRTY


def test_a_merge_with_conflicts_is_taken_as_the_files_are(repository):
    repository.git("checkout", "--quiet", "-b", "side")
    repository.commit({"a.py": "a = 'side'\n", "b.py": "b = 'side'\n", "only side.py": "s\n"})
    repository.git("checkout", "--quiet", "main")
    repository.git("rm", "--quiet", "b.py")
    repository.commit({"a.py": "a = 'main'\n"})
    repository.git("merge", "side", check=False)
    assert repository.git("ls-files", "--unmerged")
    before = repository.state()
    snapshot = repository.take()
    assert repository.state() == before
    files = repository.files(snapshot.commit)
    assert files["a.py"].startswith(b"<<<<<<< HEAD\na = 'main'\n")
    assert (files["b.py"], files["only side.py"]) == (b"b = 'side'\n", b"s\n")
    assert repository.git("rev-parse", f"{snapshot.commit}^@") == repository.git(
        "rev-parse", "HEAD"
    )


@pytest.mark.parametrize("autocrlf", ["true", "input"])
def test_line_endings_are_stored_as_git_would(repository, autocrlf):
    repository.git("config", "core.autocrlf", autocrlf)
    repository.git("config", "core.safecrlf", "true")
    repository.write({"dos.txt": "1\r\n2\r\n", "unix.txt": "1\n2\n", "mixed.txt": "1\r\n2\n"})
    files = repository.files(repository.take().commit)
    assert {files[name] for name in ("dos.txt", "unix.txt", "mixed.txt")} == {b"1\n2\n"}
    assert (repository.path / "dos.txt").read_bytes() == b"1\r\n2\r\n"


NAMES = ["größe 数据.py", "two  spaces ", "line\nbreak", "tab\there", "-dash", "--", "*.py", "[a]"]
NAMES += ["back\\slash", 'quo"te', ":(top)x", "# branch.oid", "? x", "e\u0301", "a/b\n/c", "\udcff"]


def test_file_names_of_every_kind_are_taken(repository):
    tracked = {f"tracked/{name}": "1" for name in NAMES}
    repository.commit(tracked)
    changed = dict.fromkeys(tracked, "2") | dict.fromkeys(NAMES, "3")
    repository.write(changed)
    files = repository.files(repository.take().commit)
    assert {name: files[name].decode() for name in changed} == changed
    for name, shown in [(NAMES[0], NAMES[0]), (NAMES[2], "'line\\nbreak"), (NAMES[-1], "'\\udcff")]:
        repository.large(name)
        assert f"{shown} (26 MB)" in repository.refused(to_send=True)


def test_no_identity_is_needed(dirty, home):
    (home / ".gitconfig").write_text("[user]\n\tuseConfigOnly = true\n")
    snapshot = dirty.take()
    assert dirty.files(snapshot.commit) == DIRTY
    shown = dirty.git("log", "-1", "--format=%an <%ae> %cn <%ce>", snapshot.commit)
    assert shown == "lab <lab@localhost> lab <lab@localhost>"


def test_a_calling_git_hook_does_not_lead_to_another_repository(dirty, tmp_path, monkeypatch):
    other = tmp_path / "other"
    subprocess.run(["git", "init", "--quiet", other], check=True)
    expected, before = dirty.take(), dirty.state()
    for name, value in {
        "GIT_DIR": other / ".git",
        "GIT_WORK_TREE": other,
        "GIT_INDEX_FILE": other / ".git/index",
        "GIT_OBJECT_DIRECTORY": other / ".git/objects",
        "GIT_COMMON_DIR": other / ".git",
        "GIT_CONFIG": other / ".git/config",
        "GIT_NAMESPACE": "other",
        "GIT_LITERAL_PATHSPECS": "1",
        "GIT_EXTERNAL_DIFF": "false",
        "GIT_PREFIX": "nowhere/",
    }.items():
        monkeypatch.setenv(name, str(value))
    assert dirty.take() == expected
    diff = snapshots.diff(expected)
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    assert dirty.state() == before and diff == snapshots.diff(expected)
    assert not (other / ".git/index").exists()


def test_it_does_not_matter_where_it_is_called_from(dirty, tmp_path, monkeypatch):
    expected = dirty.take()
    for folder in (tmp_path, dirty.path / "new/folder", dirty.path / ".git"):
        monkeypatch.chdir(folder)
        assert dirty.take() == expected


def test_a_project_inside_a_bigger_repository_takes_all_of_it(repository, monkeypatch):
    repository.commit({"projects/mine/experiment.py": "1\n", "library/shared.py": "1\n"})
    repository.write({"projects/mine/new.py": "2\n", "library/shared.py": "2\n"})
    monkeypatch.setattr(project, "root", lambda: repository.path / "projects/mine")
    snapshot = repository.take()
    files = repository.files(snapshot.commit)
    assert files["projects/mine/new.py"] == files["library/shared.py"] == b"2\n"
    assert snapshot.folder == "projects/mine"
    assert "library/shared.py" in snapshots.diff(snapshot)
    repository.large("library/model.pt")
    assert "library/model.pt" in repository.refused(to_send=True)


def test_a_project_that_the_repository_around_it_ignores_is_refused(repository, monkeypatch):
    repository.write({"ignored/mine/experiment.py": "1\n"})
    monkeypatch.setattr(project, "root", lambda: repository.path / "ignored/mine")
    assert "git init" in repository.refused()


def notebook(output: str) -> str:
    cell = {"cell_type": "code", "metadata": {}, "source": "1", "execution_count": 1}
    cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": output}]
    return json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


@pytest.mark.slow
def test_notebooks_are_taken_without_their_output(repository):
    repository.git("config", FILTER, NOTEBOOK_FILTER)
    repository.write({".gitattributes": f"*.ipynb filter={FILTER.split('.')[1]}\n"})
    (repository.path / "vendor").mkdir()
    wheel = repository.path / "vendor/dl_remote_lab-1.0.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as packed:
        for path in PACKAGE.rglob("*.py"):
            packed.write(path, path.relative_to(PACKAGE.parent))
    repository.commit({"explore.ipynb": notebook("one")})
    for output in ("two", "x" * LARGE):
        repository.write({"explore.ipynb": notebook(output)})
        before = repository.state()
        assert not repository.take().dirty
        assert repository.state() == before
    repository.write({"new.ipynb": notebook("three")})
    stored = json.loads(repository.files(repository.take().commit)["new.ipynb"])
    assert stored["cells"][0]["outputs"] == []


def test_signing_and_hooks_of_the_user_are_left_alone(dirty):
    dirty.git("config", "commit.gpgSign", "true")
    dirty.git("config", "gpg.program", "false")
    for name in HOOKS:
        hook = dirty.path / ".git/hooks" / name
        hook.write_text("#!/bin/sh\necho called >> hook-was-called\nexit 1\n")
        hook.chmod(0o755)
    assert dirty.files(dirty.take().commit) == DIRTY


@pytest.mark.parametrize("option", ["--assume-unchanged", "--skip-worktree"])
def test_files_that_git_was_told_not_to_look_at_are_taken(repository, option):
    repository.git("update-index", option, "a.py", "b.py")
    repository.write({"a.py": "a = 2\n"})
    before = repository.state()
    files = repository.files(repository.take().commit)
    assert (files["a.py"], files["b.py"]) == (b"a = 2\n", b"b = 1\n")
    assert repository.state() == before
    repository.large("a.py")
    assert "a.py (26 MB)" in repository.refused()


def test_a_file_monitor_that_misses_a_change_is_not_trusted(repository):
    repository.write({".git/monitor": "#!/bin/sh\nprintf 'token\\0'\n"})  # nothing changed, ever
    (repository.path / ".git/monitor").chmod(0o755)
    repository.git("config", "core.fsmonitor", ".git/monitor")
    repository.git("status")
    repository.git("status")
    repository.write({"a.py": "a = 2\n"})
    assert repository.git("status", "--porcelain") == "", "git believes its monitor"
    assert repository.files(repository.take().commit)["a.py"] == b"a = 2\n"


def test_a_sparse_checkout_keeps_what_is_not_checked_out(repository):
    repository.commit({"here/a.py": "1\n", "there/b.py": "1\n"})
    repository.git("sparse-checkout", "set", "--no-cone", "/here/")
    assert not repository.take().dirty
    repository.write({"here/a.py": "2\n", "elsewhere/c.py": "3\n"})
    files = repository.files(repository.take().commit)
    assert (files["here/a.py"], files["there/b.py"], files["elsewhere/c.py"]) == (
        b"2\n",
        b"1\n",
        b"3\n",
    )


def test_a_split_index_is_read_and_left_as_it_is(dirty):
    dirty.git("update-index", "--split-index")
    index = (dirty.path / ".git/index").read_bytes()
    assert dirty.files(dirty.take().commit) == DIRTY
    assert (dirty.path / ".git/index").read_bytes() == index
    assert len(list(dirty.path.glob(".git/sharedindex.*"))) == 1


def test_a_change_in_the_same_instant_as_git_add_is_seen(repository):
    repository.git("config", "core.trustctime", "false")
    long_ago = (10**18, 10**18)
    os.utime(repository.path / "a.py", ns=long_ago)
    repository.git("add", "a.py")
    repository.write({"a.py": "a = 2\n"})  # as long as before
    os.utime(repository.path / "a.py", ns=long_ago)
    os.utime(repository.path / ".git/index", ns=long_ago)
    assert repository.files(repository.take().commit)["a.py"] == b"a = 2\n"


def test_a_temporary_file_that_vanishes_meanwhile_does_no_harm(repository):
    repository.write({".gitattributes": "*.first filter=remove\n", "1.first": "1", "2.swp": "2"})
    repository.git("config", "filter.remove.clean", "rm -f 2.swp; cat")
    files = repository.files(repository.take().commit)
    assert "1.first" in files and "2.swp" not in files


@pytest.mark.slow
def test_60_parallel_snapshots_corrupt_nothing_and_lose_nothing(dirty):
    before, start, again = dirty.state(), threading.Barrier(60), threading.Barrier(20)

    def with_a_file_of_its_own(number):
        start.wait()
        dirty.write({f"new/{number}": str(number)})
        return dirty.take().commit

    def of_the_same_tree(number):
        again.wait()
        return dirty.take().commit

    with ThreadPoolExecutor(60) as pool:
        own = list(pool.map(with_a_file_of_its_own, range(60)))
        same = set(pool.map(of_the_same_tree, range(20)))
    assert len(same) == 1
    held = dirty.git("rev-parse", *(f"{commit}:new/{n}" for n, commit in enumerate(own)))
    expected = dirty.git("hash-object", *(f"new/{n}" for n in range(60)))
    assert held == expected
    refs = dirty.git("for-each-ref", "--format=%(objectname) %(refname)", "refs/lab").splitlines()
    commits = {*own, *same}
    assert sorted(refs) == sorted(f"{c} refs/lab/snapshots/{c}" for c in commits)
    assert dirty.git("fsck", "--strict", "--no-dangling", "--no-progress") == ""
    after = dirty.state()
    assert before.items() <= (after | {"status": before["status"]}).items()
    assert not left_over() and not list(dirty.path.glob(".git/**/*.lock"))


def test_a_snapshot_waits_for_a_ref_that_another_one_is_writing(dirty):
    ref = "refs/lab/snapshots/" + dirty.take().commit
    dirty.git("update-ref", "-d", ref)  # else it is there already, and nothing is written
    lock = dirty.path / ".git" / f"{ref}.lock"
    lock.parent.mkdir(exist_ok=True, parents=True)
    lock.touch()
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(dirty.take)
        # a git that waits half a second, longer than by default, has given up
        patience = ["-c", "core.filesRefLockTimeout=500"]
        dirty.git(*patience, "update-ref", ref, "HEAD", check=False)
        lock.unlink()
        assert waiting.result().dirty


def test_without_git_it_says_so_in_one_line(repository, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LabError) as caught:
        repository.take()
    assert str(caught.value) == "git cannot be started (No such file or directory): install it."


def test_outside_of_a_repository_it_names_the_next_step(fresh, monkeypatch):
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.setenv("LANGUAGE", "de")  # where git has its translations, it would speak German
    shutil.rmtree(fresh.path / ".git")
    with pytest.raises(LabError) as caught:
        fresh.take()
    assert str(caught.value).endswith(
        "project is not in a git repository: run python3 bootstrap.py."
    )


def test_a_repository_without_working_tree_is_refused(repository):
    repository.git("config", "core.bare", "true")
    with pytest.raises(LabError, match="must be run in a work tree"):
        repository.take()


def test_a_repository_of_another_user_is_refused_with_the_fix(repository, tmp_path, monkeypatch):
    program = tmp_path / "bin/git"
    program.parent.mkdir()
    real = shutil.which("git")
    program.write_text(f'#!/bin/sh\nGIT_TEST_ASSUME_DIFFERENT_OWNER=1 exec {real} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    with pytest.raises(LabError) as caught:
        repository.take()
    assert "belongs to another user" in str(caught.value) and "\n" not in str(caught.value)
    fix = f"git config --global --add safe.directory {repository.path}"
    assert str(caught.value).endswith(fix)
    trusted = {"COUNT": "1", "KEY_0": "safe.directory", "VALUE_0": str(repository.path)}
    for name, value in trusted.items():
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    assert not repository.take().dirty


def test_what_git_itself_refuses_is_passed_on_in_one_line(repository, monkeypatch):
    repository.write({".gitattributes": "*.new filter=broken\n", "a.new": "1"})
    repository.git("config", "filter.broken.clean", "false")
    repository.git("config", "filter.broken.required", "true")
    complaint = (
        r"^git failed: external filter 'false' failed.*; a.new: clean filter 'broken' failed\."
    )
    with pytest.raises(LabError, match=complaint):
        repository.take()
    assert not left_over()
    monkeypatch.setattr(tempfile, "tempdir", str(repository.path / "not there"))
    with pytest.raises(LabError, match="no snapshot can be taken: .*there"):
        repository.take()


URLS = {
    "https://example.org/a/b.git": "https://example.org/a/b.git",
    "https://me:s3cret@example.org:8443/a@b.git": "https://example.org:8443/a@b.git",
    "https://ghp_s3cret@example.org/a": "https://example.org/a",
    "https://me:p@s3cret@example.org/a": "https://example.org/a",
    "https://example.org/a?private_token=s3cret#s3cret": "https://example.org/a",
    "ssh://git@example.org:22/a": "ssh://git@example.org:22/a",
    "ssh://me:s3cret@example.org/a": "ssh://me@example.org/a",
    "git+ssh://me:s3cret@example.org/a": "git+ssh://me@example.org/a",
    "git@example.org:a/b#c.git": "git@example.org:a/b#c.git",
    "../beside me": "../beside me",
    "store::https://me:s3cret@example.org/a": "store::https://example.org/a",
}


@pytest.mark.parametrize("url", URLS)
def test_remotes_come_without_credentials(repository, url):
    assert git.remote_urls() == {}
    repository.git("remote", "add", "my.remote", url)
    repository.git("config", "url.https://s3cret@example.org/.insteadOf", "https://example.org/")
    assert git.remote_urls() == {"my.remote": URLS[url]}


def test_a_snapshot_is_kept_wherever_its_ref_lies_and_again_if_that_is_gone(dirty):
    taken = dirty.take().commit
    ref = f"{snapshots.REFS}/{taken}"
    for words in (["pack-refs", "--all"], ["update-ref", "-d", ref]):
        dirty.git(*words)
        assert dirty.take().commit == taken == dirty.git("rev-parse", ref)


def test_what_a_machine_has_by_its_last_commit_is_not_sent_again(repository):
    old = repository.take().commit
    repository.write({"a.py": "a = 2\n"})
    new = repository.take().commit
    for base, sent in [("", True), (old, True), (new, False)]:
        with sending.make_bundle(new, base) as bundle:
            assert bool(bundle) == sent
    with sending.make_bundle(old, new) as bundle:  # an ancestor of that commit
        assert not bundle
    with pytest.raises(LabError), sending.make_bundle(new, "f" * 40):
        pass
