"""What the template's README, Makefile and workflows promise."""

import json
import re
import subprocess
import sys

import pytest

import layers
from helpers.projects import LAB, TEMPLATE, UV_CACHE, Project, edit, share_compiled

README = (TEMPLATE / "README.md").read_text("utf-8")


def read_blocks() -> list[list[str]]:
    """Return the lines of each fenced sh block of the README."""
    return [block.splitlines() for block in re.findall(r"```sh\n(.*?)```", README, re.S)]


def test_the_readme_begins_with_one_sentence_one_command_and_one_image():
    first_screen = README.split("\n\n")[:4]
    assert first_screen[0] == "# dl-remote-template"
    assert first_screen[1].count(".") == 1
    assert first_screen[2].splitlines()[1:-1] == ["cookiecutter gh:org/dl-remote-template"]
    image = re.fullmatch(r"!\[.+\]\((\S+)\)", first_screen[3]).group(1)
    assert (TEMPLATE / image).read_text("utf-8").startswith("<svg")


@pytest.mark.slow
def test_make_demo_trains_and_make_lock_and_make_wheel_reproduce_the_committed_files(
    template_copy, compiled, home, tmp_path
):
    """In one copy: its tools are installed once."""
    source = "{{cookiecutter.project_slug}}/src/{{cookiecutter.__package}}/experiment.py"
    edit(template_copy.path / source, "epochs: Annotated[int, Ge(1)] = 15", "epochs: int = 4")
    template_copy.git("commit", "--quiet", "--all", "--message", "less to wait for")
    demo = Project(template_copy.path / "build/demo/my-experiment")
    share_compiled(compiled, demo, tmp_path / "compiled")
    prefix = {"PYTHONPYCACHEPREFIX": str(tmp_path / "compiled")}
    output = template_copy.run("make", "demo", env=prefix).stdout
    record = re.search(r"record    (runs/\S+)", output).group(1)
    assert (demo.path / record / "run.json").exists()
    assert re.search(r"test      accuracy (0\.9\d\d\d|1\.0000)", output)
    states = re.findall(r"^  (\w+) +(?:environment|kernel|repository) ", output, re.M)
    assert states == ["done"] * 3, output

    lock = "{{cookiecutter.project_slug}}/requirements.txt"
    edit(template_copy.path / lock, "sacred==0.8.7\n", "")  # pyproject.toml allows no other
    template_copy.run("make", "lock")
    assert (template_copy.path / lock).read_bytes() == (TEMPLATE / lock).read_bytes()
    for wheel in template_copy.path.glob("*/vendor/*.whl"):
        wheel.unlink()
    template_copy.run("make", "wheel")
    assert template_copy.git("status", "--porcelain") == ""


def test_every_command_of_the_readme_is_run_by_a_test():
    commands = [line for block in read_blocks() for line in block]
    make = {line for line in commands if line.startswith("make ")}
    names = "check test-fast demo test wheel lock bench bench-remote"
    assert make == {f"make {name}" for name in names.split()}
    # demo, wheel, lock: in this file; test: this one, and it runs check; bench: in benchmarks/
    targets = re.findall(r"^([a-z-]+):", (TEMPLATE / "Makefile").read_text("utf-8"), re.M)
    assert {f"make {target}" for target in targets} >= make
    # the first hour: test_project.py runs the same commands from the project's own README, and
    # test_remote_document.py those that begin with lab doctor
    tested = (TEMPLATE / "{{cookiecutter.project_slug}}" / "README.md").read_text("utf-8")
    tested = tested.replace("{{ package }}", "my_experiment")
    rest = [line for line in commands if line not in make]
    assert rest.pop(0).startswith("cookiecutter gh:")
    assert rest.pop(0) == "cd my-experiment"
    remote = README.split("## The first hour on a remote machine")[1]
    for line in rest:
        if f"\n{line}\n" in remote:
            continue
        assert f"\n{line}\n" in tested, line


def test_every_link_of_the_documents_leads_somewhere():
    for page in [*TEMPLATE.glob("*.md"), *TEMPLATE.glob("docs/*.md"), *TEMPLATE.glob("lab/*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_continuous_integration_runs_the_checks_and_the_tests():
    assert "\nmake test\n" in (TEMPLATE / ".ci" / "run").read_text("utf-8")
    workflow = (TEMPLATE / ".github/workflows/tests.yml").read_text("utf-8")
    assert "- run: make check\n" in workflow
    assert "- run: .ci/run\n" in workflow


def test_every_action_and_hook_is_pinned_by_the_hash_of_a_commit():
    files = [*TEMPLATE.glob(".github/workflows/*.yml"), TEMPLATE / ".pre-commit-config.yaml"]
    files += (TEMPLATE / "{{cookiecutter.project_slug}}/.github/workflows").glob("*.yml")
    assert len(files) > 2
    for path in files:
        for line in re.findall(r"(?m)^ *-? (?:uses|rev): (.*)$", path.read_text("utf-8")):
            assert re.fullmatch(r"\S*\b[0-9a-f]{40} # (frozen: )?v[\d.]+", line), f"{path}: {line}"


@pytest.mark.slow
def test_what_sp_repo_review_finds_has_its_reason_in_the_decisions(bake):
    paragraph = (
        (TEMPLATE / "docs/decisions.md").read_text("utf-8").split("## What sp-repo-review")[1]
    )
    reasons = set(re.findall(r"\b[A-Z]{2,3}\d{3}\b", paragraph.split("\n## ")[0]))
    found = set()
    for folder, most, least in ((LAB.parent, 5, 50), (bake().path, 8, 35)):
        command = [sys.executable, "-m", "repo_review", str(folder), "--format=json"]
        checks = json.loads(subprocess.run(command, stdout=subprocess.PIPE).stdout)["checks"]
        failed = {name for name, check in checks.items() if check["result"] is False}
        passed = {name for name, check in checks.items() if check["result"]}
        assert len(failed) <= most and len(passed) >= least, folder
        found |= failed
    assert found == reasons


def test_the_docstring_of_lab_names_each_sub_package_once():
    text = (LAB / "lab/__init__.py").read_text("utf-8")
    named = re.findall(r"^    (?:lab\.)?(\w+)  ", text, re.M)
    existing = {path.stem for path in (LAB / "lab").glob("*.py")} - {"__init__"}
    existing |= {path.parent.name for path in (LAB / "lab").glob("*/__init__.py")}
    assert sorted(named) == sorted(existing)


def test_contributing_draws_the_layers_of_the_contract():
    (drawn,) = layers.BLOCK.findall((TEMPLATE / "CONTRIBUTING.md").read_text("utf-8"))
    assert drawn == layers.draw_layers(), "scripts/layers.py"


def test_no_file_names_a_path_of_the_machine_it_was_made_on():
    names = subprocess.check_output(["git", "ls-files", "-z"], cwd=TEMPLATE).decode().split("\0")
    for name in filter(None, names):
        # images are no text, but may contain a path as well
        path = TEMPLATE / name
        text = path.read_text("utf-8", errors="replace") if path.exists() else ""
        assert f"{TEMPLATE}/" not in text, name
        assert UV_CACHE not in text, name


def test_every_test_that_a_document_names_exists():
    files = [*TEMPLATE.glob("tests/*.py"), *TEMPLATE.glob("lab/tests/*.py")]
    tests = "".join(path.read_text("utf-8") for path in files)
    named = set()
    for page in TEMPLATE.glob("docs/*.md"):
        named |= set(re.findall(r"`(test_\w+)`", page.read_text("utf-8")))
    assert len(named) > 30
    assert named <= set(re.findall(r"def (test_\w+)", tests))


@pytest.mark.slow
def test_shellcheck_finds_nothing_in_any_shell_script():
    scripts = [TEMPLATE / ".ci/run", *TEMPLATE.glob("scripts/*.sh")]
    scripts += [*LAB.rglob("*.sh"), *LAB.rglob("*.bash")]
    assert len(scripts) > 20
    # variables come from Python (2154) or are used in another file (2034); ~ is literal (2088)
    options = ["--severity=warning", "--exclude=SC2154,SC2034,SC2088"]
    bash = [one for one in scripts if one.name == "run" or one.suffix == ".bash"]
    for shell, files in (("bash", bash), ("sh", [one for one in scripts if one not in bash])):
        command = ["shellcheck", f"--shell={shell}", *options, *files]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
