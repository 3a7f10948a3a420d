"""docs/make-it-yours.md fits the project: what it names exists, and a table is trained by it."""

import ast
import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from lab.datasets.manifest import parse_manifest

from helpers.projects import LAB, TEMPLATE

PAGE = (TEMPLATE / "docs/make-it-yours.md").read_text("utf-8")
(SRC,) = (TEMPLATE / "{{cookiecutter.project_slug}}/src").iterdir()
TABLE = Path(__file__).parent / "helpers/table"  # what its reader writes for the table
PAGES_OWN = {"seeds.py", "baseline.py"}  # files that the reader writes


def read_blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.S)


def list_defined(module: str) -> set[str]:
    """The names that a module of the project defines at its top level."""
    tree = ast.parse((SRC / f"{module}.py").read_text("utf-8"))
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    targets = [node.targets[0] for node in tree.body if isinstance(node, ast.Assign)]
    return names | {target.id for target in targets if isinstance(target, ast.Name)}


def test_what_its_code_takes_from_the_project_is_there():
    blocks = [ast.parse(block) for block in read_blocks("python")]
    assert len(blocks) == 6
    modules = {path.stem for path in SRC.glob("*.py")}
    taken = {
        (node.value.id, node.attr)
        for block in blocks
        for node in ast.walk(block)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    # these two may be variables as well
    taken = {one for one in taken if one[0] in modules - {"model", "accelerator"}}
    taken |= {("model", "SmallCNN"), ("accelerator", "make_accelerator")}
    assert len(taken) > 6
    for module, name in taken:
        assert name in list_defined(module), f"{module}.{name}"
    settings = set(re.findall(r"\bconfig\.(\w+)", PAGE))
    fields = re.findall(r"(?m)^    (\w+): ", (SRC / "experiment.py").read_text("utf-8"))
    assert settings - {"words"} and settings <= {*fields, "words"}  # that is the page's own


def test_the_example_imports_what_it_declares_and_its_loop_uses_nothing_private():
    """People copy from these to add a module, and read the loop first."""
    text = (SRC.parent.parent / "pyproject.toml").read_text("utf-8")
    declared = {re.split("[=><]", one)[0] for one in re.findall(r'(?m)^    "(.*?)"', text)}
    packages = {"PIL": "pillow", "sklearn": "scikit-learn", "lab": "dl-remote-lab"}
    modules = sorted(SRC.glob("*.py"))
    for path in modules:
        tree = ast.parse(path.read_text("utf-8"))
        names = [
            node.module
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and not node.level
        ]
        names += [
            one.name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for one in node.names
        ]
        tops = {name.partition(".")[0] for name in names} - sys.stdlib_module_names
        assert {packages.get(name, name).replace("_", "-") for name in tops} <= declared, path
    loop = ast.parse((SRC / "training.py").read_text("utf-8"))
    private = [
        node.attr
        for node in ast.walk(loop)
        if isinstance(node, ast.Attribute) and node.attr[0] == "_"
    ]
    assert len(modules) > 8 and private == []


def test_its_commands_exist():
    lines = [line for block in read_blocks("sh") for line in block.splitlines()]
    assert len(lines) > 6
    for line in lines:
        program, *words = shlex.split(line)
        if program == "python":
            module = words[1].removeprefix("my_experiment.") + ".py"
            assert words[0] == "-m" and module in PAGES_OWN | {path.name for path in SRC.iterdir()}
        elif program == "lab":
            assert f'"{words[0]}"' in "".join(p.read_text() for p in LAB.glob("lab/cli/*.py"))
        else:
            assert program in ("git", "rm", "python3")


def test_its_files_exist_and_its_counts_are_those_of_the_project():
    project = SRC.parent.parent
    existing = {
        path.name for folder in ("", "tests", "notebooks") for path in (project / folder).iterdir()
    }
    existing |= {path.name for path in SRC.iterdir()} | PAGES_OWN
    named = set(re.findall(r"`([\w-]+\.(?:py|ipynb|toml|cff))`", PAGE))
    assert len(named) > 12 and named <= existing
    for name, count in re.findall(r"\| `(\w+\.py)`, (\d+) lines \|", PAGE):
        lines = len((SRC / name).read_text("utf-8").splitlines())
        assert lines == pytest.approx(int(count), rel=0.1), name


def test_its_manifest_is_one_that_lab_takes():
    (block,) = read_blocks("json")
    assert list(parse_manifest(block, "data/x").files) == list(json.loads(block)["files"])
    for key in re.findall(r'"(\w+)": [{\[]', block):
        assert f"`{key}`" in PAGE or key == "classes"


def test_it_leads_to_every_document_and_the_readmes_lead_to_it():
    linked = set(re.findall(r"\]\(([\w-]+\.md)\)", PAGE))
    assert linked == {p.name for p in TEMPLATE.glob("docs/*.md")} - {"make-it-yours.md"}
    for readme in (TEMPLATE / "README.md", SRC.parent.parent / "README.md"):
        assert "docs/make-it-yours.md" in readme.read_text("utf-8")


@pytest.mark.parametrize("module", ["experiment", "data"])
def test_help_prints_lines_that_can_be_copied(bake, module):
    baked = bake(project_name="Zebra Count")
    (source,) = baked.path.glob(f"src/*/{module}.py")
    lines = re.findall(r"(?m)^python -m .*$", ast.get_docstring(ast.parse(source.read_text())))
    assert len(lines) > 2
    assert all(line.startswith(f"python -m zebra_count.{module}") for line in lines)
    assert not any("  " in line for line in lines)


def test_a_table_is_trained_resumed_and_tested_by_what_the_page_changes(clone, project):
    """If the patch no longer fits the example, make it again, and check what the page says."""
    (clone.path / ".venv").symlink_to(project.path / ".venv")
    source = clone.path / "src/my_experiment"
    for path in (source / "images.py", source / "splitting.py", source / "plots.py"):
        path.unlink()
    (clone.path / "tests/test_data.py").unlink()
    clone.run("git", "apply", TABLE / "example.patch")
    numbers = re.findall(r"(?m)^(\d+)\t\d+\t.*?(\w+\.py)$", clone.git("diff", "--numstat"))
    lines = {name: int(number) for number, name in numbers}
    for name in ("data.py", "model.py"):
        shutil.copy(TABLE / name, source)
        lines[name] = len((source / name).read_text("utf-8").splitlines())
    rows = re.findall(r"(?m)^\| (.*) \| .* \| .*?(\d+)\b.*? \|$", PAGE)
    for names, count in rows:
        changed = sum(lines[name] for name in re.findall(r"`(\w+\.py)`", names))
        assert int(count) == pytest.approx(changed, rel=0.1), names
    assert len(rows) == 6
    env = {"PYTHONPATH": str(source.parent)}
    for action in ("prepare", "verify"):
        clone.run("python", "-m", "my_experiment.data", action, env=env)
    clone.run("python", "-m", "my_experiment.experiment", "with", "smoke", env=env)
    own = ("-k", "record or resumed or cut")  # what is hardest to keep
    clone.run("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", *own, env=env)
