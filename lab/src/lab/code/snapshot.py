"""Commits the working tree as it is, so that git has the code of every run."""

import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from lab.ground import files, git, project
from lab.ground.errors import LabError
from lab.ground.terminal import escape, print_message

REFS = "refs/lab/snapshots"  # a ref for each keeps them from git's garbage collection
MEGABYTE = 1_000_000
# Overrides settings of the user that would prevent or change a snapshot, or write beside the
# temporary index. The time-out (ms) is for many snapshots of one tree at once: they want one ref.
OVERRIDES = """core.hooksPath=/dev/null core.fsmonitor= core.splitIndex=false core.safecrlf=false
    core.sparseCheckout=false core.filesRefLockTimeout=60000 i18n.commitEncoding=UTF-8"""
SETTINGS = [word for setting in OVERRIDES.split() for word in ("-c", setting)]
# As in code.sh: on a machine, git-lfs has nowhere to get a file's content from.
NO_LFS = "filter.lfs.clean= filter.lfs.smudge= filter.lfs.process= filter.lfs.required=false"
LARGE = (
    "add them to .gitignore (git rm --cached those that git tracks), or track them with git-lfs; if"
    " scripts write them, name their folder in outputs of [tool.lab]."
)
# What stands in place of a file that git-lfs has not downloaded.
POINTER = b"version https://git-lfs"
# Files in git's folder while an operation on the working tree is unfinished.
UNFINISHED = {
    "MERGE_HEAD": "merge",
    "rebase-merge": "rebase",
    "rebase-apply": "rebase",
    "CHERRY_PICK_HEAD": "cherry-pick",
    "REVERT_HEAD": "revert",
}
EVERYTHING = ["--", ":/"]
ENVIRONMENT_MARKS = ("/pyvenv.cfg", "/conda-meta/history")  # in the folder of venv and of conda
Git = Callable[..., str]  # git.run at the top of the working tree, on the temporary index


class Snapshot(NamedTuple):
    """A commit that holds everything in the working tree that git does not ignore."""

    commit: str
    parent: str | None  # HEAD at that time; None in a repository without commits
    dirty: bool  # whether it differs from HEAD; if it does not, the commit is HEAD itself
    branch: str | None  # None on a detached HEAD
    folder: str  # the project's, inside the commit; "." unless the repository is a bigger one
    problem: str = ""  # names the large files that it lacks


def take(limit_mb: float = 25, *, to_send: bool = False) -> Snapshot:
    """Commit the working tree, with uncommitted and untracked work, beside the user's own commits.

    HEAD, index, stash and working tree stay as they are. The same tree on the same HEAD gives the
    same commit, and a tree that equals HEAD's gives HEAD. If the project is part of a bigger
    repository, all of it is taken: the code may use what lies beside the project.

    An environment that git does not ignore is left out, with a message. So are untracked files
    above `limit_mb`, unless the code is `to_send`.

    Raises LabError, before anything is written, for submodules, other repositories inside this
    one, and new or changed files above `limit_mb`. For a file with a filter, as of git-lfs, the
    size of what git stores counts, unless it is `to_send`. Also if git is missing or fails, or
    git-lfs has not downloaded a file that is to be sent.
    """
    problem = ""
    top, index, refs = _locate()
    try:
        with tempfile.TemporaryDirectory(prefix="lab-snapshot-") as folder:
            copy = Path(folder, "index")
            if index.exists():  # a new repository has none
                times = index.stat()  # git compares them to see which entries are too new to trust
                shutil.copyfile(index, copy)
                os.utime(copy, ns=(times.st_atime_ns, times.st_mtime_ns))
            run = partial(git.run, *SETTINGS, cwd=top, GIT_INDEX_FILE=str(copy))
            submodules, conflicts = _unhide_files(run, top)
            paths = _exclude_outputs(top)
            head, branch, changed, untracked = _read_status(run, paths)
            if environments := _find_environments(top, untracked):
                _report_environments(top, environments)
                below = tuple(f"{folder}/" for folder in environments)
                changed = [name for name in changed if not name.startswith(below)]
                paths = [*(paths or EVERYTHING), *map(_exclude, environments)]
            if not to_send:
                names = sorted({*untracked} & {*changed})
                large, _ = _find_large(run, top, names, limit_mb * MEGABYTE)
                changed = [name for name in changed if name not in large]
                paths = [*(paths or EVERYTHING), *map(_exclude, large)] if large else paths
                problem = _report_large(large, limit_mb)
            inside = submodules + [name for name in changed if name.endswith("/")]
            advice = "ignore them (submodules: git rm --cached first), or remove their .git."
            _refuse("a snapshot cannot contain other repositories", inside, advice)
            tree = ""  # that of HEAD
            if changed or not head:
                tree = _write_tree(run, top, changed, paths, limit_mb * MEGABYTE)
            if to_send:
                _report_unfinished(index.parent, conflicts)
                tree = _smudge(run, top, limit_mb * MEGABYTE) or tree
            commit = head if head and not tree else _write_commit(run, tree, head)
            _keep(run, commit, refs)
    except OSError as error:
        raise LabError(f"no snapshot can be taken: {error}.") from None
    folder = os.path.relpath(project.root(), top)
    return Snapshot(commit, head, commit != head, branch, folder, problem)


def diff(snapshot: Snapshot, limit: int = MEGABYTE) -> str:
    """Return the uncommitted changes: `git diff HEAD SNAPSHOT`, cut off at `limit` bytes.

    Raises LabError if the snapshot is not in this repository.
    """
    if not snapshot.dirty:
        return ""
    # unlike git diff, it ignores the user's colors and external diff programs
    command = ["diff-tree", "--root", "--no-commit-id", "--patch", snapshot.commit]
    patch = os.fsencode(git.run(*command, limit=limit))
    if len(patch) > limit:
        whole_lines = patch[: patch.rfind(b"\n", 0, limit) + 1]
        patch = whole_lines + f"... cut off; all of it: git show {snapshot.commit}\n".encode()
    return patch.decode("utf-8", "backslashreplace")


def _locate() -> tuple[Path, Path, Path]:
    """Return the top folder of the working tree that the project is in, its index file, and REFS.

    The last is the folder of the refs that lie in files.
    """
    inside = "--is-inside-work-tree"  # "true" separates the paths, which may contain line ends
    asked = ("--show-toplevel", inside, "--git-path", "index", inside, "--git-path", REFS)
    answer = git.run("rev-parse", *asked).removesuffix("\n").split("\ntrue\n", 2)
    top, index, refs = map(Path, answer)
    if top != project.root() and git.run("check-ignore", ".", accept=(0, 1)):
        raise LabError(
            f"{project.root()} is ignored by the repository around it: run git init, then python3"
            " bootstrap.py, to give it one of its own."
        )
    return top, project.root() / index, project.root() / refs


def _unhide_files(run: Git, top: Path) -> tuple[list[str], list[str]]:
    """Clear the index's flags to skip files; return submodules and files with conflicts."""
    listed = [entry.split("\t", 1) for entry in git.split_null(run("ls-files", "-vsz"))]
    assumed = [name for about, name in listed if about[0].islower()]
    # files that a sparse checkout leaves out stay as they are in HEAD
    skipped = [name for about, name in listed if about[0] in "Ss" and os.path.lexists(top / name)]
    for option, names in [("assume-unchanged", assumed), ("skip-worktree", skipped)]:
        if names:
            run("update-index", f"--no-{option}", "-z", "--stdin", stdin="\0".join(names))
    submodules = [name for about, name in listed if about.split()[1] == "160000"]
    conflicts = [name for about, name in listed if about.split()[3] != "0"]
    return submodules, list(dict.fromkeys(conflicts))


def _report_unfinished(git_folder: Path, conflicts: list[str]) -> None:
    """Warn that a merge or the like is unfinished: the user may not mean to send that state."""
    begun = [word for name, word in UNFINISHED.items() if os.path.lexists(git_folder / name)]
    what = f"a {begun[0]} is not finished" if begun else "unfinished"
    if conflicts:
        print_message(f"{what}: sent with the conflicts in {_format_names(conflicts)}")
    elif begun:
        print_message(f"{what}: the working tree is sent as it is")


def _smudge(run: Git, top: Path, limit: float) -> str:
    """Write a tree with the content of the files that git-lfs keeps; "" if there are none."""
    listed = git.split_null(run("ls-files", "-z", "--", ":(top,attr:filter=lfs)"))
    names = [name for name in listed if os.path.lexists(top / name)]  # else a sparse checkout's
    if not names:
        return ""
    sizes = {name: (top / name).lstat().st_size for name in names}
    absent = []
    for name in (name for name in names if sizes[name] < 1024 and (top / name).is_file()):
        with (top / name).open("rb") as file:
            absent += [name] if file.read(len(POINTER)) == POINTER else []
    _refuse("git-lfs has not downloaded", absent, "run git lfs pull.")
    large = {name: size for name, size in sizes.items() if size > limit}
    _refuse_large(large, limit, "keep them in data/, which lab push-data sends.")
    settings = [word for setting in NO_LFS.split() for word in ("-c", setting)]
    lines = "\0".join(names)
    run("update-index", "--force-remove", "-z", "--stdin", stdin=lines)
    run(*settings, "update-index", "--add", "-z", "--stdin", stdin=lines)
    return run("write-tree").strip()


def _exclude_outputs(top: Path) -> list[str]:
    """Return the paths to take: all but the outputs of [tool.lab], which stay as in HEAD."""
    folder = os.path.relpath(project.root(), top)
    names = (os.path.normpath(f"{folder}/{name}") for name in project.outputs())
    excluded = [_exclude(name) for name in names]
    return [*EVERYTHING, *excluded] if excluded else []


def _exclude(name: str) -> str:
    """Return the pathspec that leaves out a file or folder."""
    return f":(top,literal,exclude){name}"


def _find_environments(top: Path, untracked: list[str]) -> list[str]:
    """Return the folders of venv and conda environments that git does not ignore."""
    found = []
    for mark in ENVIRONMENT_MARKS:
        found += [name.removesuffix(mark) for name in untracked if name.endswith(mark)]
    # an environment that the project is in holds the code as well
    return sorted(name for name in set(found) if not project.root().is_relative_to(top / name))


def _report_environments(top: Path, environments: list[str]) -> None:
    """Print each environment that is left out, with the line for .gitignore."""
    for name in environments:
        inside = os.path.relpath(top / name, project.root())
        line = f"/{name if inside.startswith('..') else inside}/"
        print_message(
            f"{escape(inside)} is an environment, not code, and was left out: add"
            f" {escape(line)} to .gitignore"
        )


def _find_large(
    run: Git, top: Path, names: list[str], limit: float
) -> tuple[dict[str, int], set[str]]:
    """Return the sizes of files above the limit, and the large ones that a filter may shrink."""
    sizes = {}
    for name in names:
        with suppress(OSError):  # deleted; for a link, its own size counts
            sizes[name] = (top / name).lstat().st_size
    large = {name: size for name, size in sizes.items() if size > limit}
    filtered = _find_filtered(run, list(large)) if large else set()
    return {name: size for name, size in large.items() if name not in filtered}, filtered


def _report_large(sizes: dict[str, int], limit_mb: float) -> str:
    """Print the large files that are left out, and what to do; return the problem."""
    if not sizes:
        return ""
    problem = f"files above {limit_mb:g} MB are not in the commit: {_format_sizes(sizes)}"
    print_message(f"warning: {problem}; {LARGE}")
    return f"{problem}."


def _read_status(run: Git, paths: list[str]) -> tuple[str | None, str | None, list[str], list[str]]:
    """Return HEAD, its branch, changed paths ("name/": a repository) and untracked ones."""
    options = ["--branch", "--no-ahead-behind", "--no-renames", "--ignore-submodules=all"]
    listed = git.split_null(
        run("status", "--porcelain=v2", "-z", "--untracked-files=all", *options, *paths)
    )
    fields = {"1": 8, "u": 10, "?": 1}  # before the name, by the kind of entry
    changed = [entry.split(" ", fields[entry[0]])[-1] for entry in listed if entry[0] != "#"]
    untracked = [entry[2:] for entry in listed if entry[0] == "?"]
    about = dict(entry.split(" ", 2)[1:] for entry in listed if entry[0] == "#")
    head = about["branch.oid"].replace("(initial)", "") or None
    branch = about["branch.head"].replace("(detached)", "") or None
    return head, branch, changed, untracked


def _write_tree(run: Git, top: Path, changed: list[str], paths: list[str], limit: float) -> str:
    """Write a tree of everything. Refuse large files, those with a filter after it has run."""
    large, filtered = _find_large(run, top, changed, limit)
    _refuse_large(large, limit)
    for attempts_left in (2, 1, 0):  # an editor's temporary file may vanish before git reads it
        try:
            run("add", "--all", *paths)
            break
        except LabError:
            if not attempts_left:
                raise
    tree = run("write-tree").strip()
    if filtered:
        blobs = [entry.split("\t", 1) for entry in git.split_null(run("ls-tree", "-rlz", tree))]
        sizes = {name: int(about.split()[3]) for about, name in blobs if name in filtered}
        _refuse_large({name: size for name, size in sizes.items() if size > limit}, limit)
    return tree


def _find_filtered(run: Git, names: list[str]) -> set[str]:
    """Return those of the files that an installed filter, such as git-lfs, replaces."""
    keys = run("config", "-z", "--name-only", "--get-regexp", r"^filter\.", accept=(0, 1))
    installed = {key[len("filter.") :].rpartition(".")[0] for key in git.split_null(keys)}
    words = git.split_null(run("check-attr", "-z", "--stdin", "filter", stdin="\0".join(names)))
    return {name for name, value in zip(words[::3], words[2::3], strict=True) if value in installed}


def _refuse_large(sizes: dict[str, int], limit: float, advice: str = LARGE) -> None:
    cause = f"a snapshot cannot contain files above {limit / MEGABYTE:g} MB"
    if sizes:
        raise LabError(f"{cause}: {_format_sizes(sizes)}; {advice}")


def _refuse(cause: str, names: list[str], advice: str) -> None:
    """Raise LabError if there are names."""
    if names:
        raise LabError(f"{cause}: {_format_names(names)}; {advice}")


def _format_sizes(sizes: dict[str, int]) -> str:
    return _format_names([f"{name} ({size / MEGABYTE:.0f} MB)" for name, size in sizes.items()])


def _format_names(names: list[str]) -> str:
    printable = [name if name.isprintable() else repr(name) for name in names[:10]]
    return ", ".join(printable) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _write_commit(run: Git, tree: str, head: str | None) -> str:
    """Write a commit that depends on the tree and HEAD alone, or return HEAD if it has the tree."""
    date = "0"
    commit = ""
    if head:
        head_tree, date = run("rev-list", "-1", "--format=%T %ct", head).split()[-2:]
        commit = head if tree == head_tree else ""
    if not commit:
        dates = {f"GIT_{role}_DATE": f"@{date} +0000" for role in ("AUTHOR", "COMMITTER")}
        parents = ["-p", head] if head else []
        message = ["--no-gpg-sign", "-m", "The working tree of a run"]
        commit = run("commit-tree", *parents, *message, tree, **dates).strip()
    return commit


def _keep(run: Git, commit: str, refs: Path) -> None:
    """Keep a commit from git's garbage collection."""
    kept = ""
    with suppress(OSError):  # of an earlier run of the same code
        kept = files.read_text(refs / commit).strip()
    if kept != commit:
        run("update-ref", f"{REFS}/{commit}", commit)
