"""Answers that cannot work are refused before a file is written; the others arrive unchanged."""

import fcntl
import functools
import json
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path
from types import CodeType, ModuleType

import pytest
from cookiecutter.generate import generate_context
from cookiecutter.prompt import prompt_for_config
from lab.ssh import connection, machines
from markdown_it import MarkdownIt

from helpers.projects import EVERY_STEP, TEMPLATE, cookiecutter

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CANNOT_WORK = {
    "project_slug": [
        # no importable package, or no legal kernel name
        *("2fast", "My-Exp", "naïve", "a.b", "a b", "_a", "a--b", "a" * 51),
        # Python's own names, and names that would hide a package the project imports
        *("class", "lambda", "json", "logging", "torch", "lab", "scikit-learn", "python3"),
        # what Python does not list, what another package needs, what pytest imports
        *("test", "packaging", "git", "test-experiment"),
        # folders elsewhere, options, nothing
        *("../up", "a/b/c", "-rf", "--help", "  "),
    ],
    "project_name": ["", "  ", "two\nlines", "bell\a", "null\x7f", "\u2028", "a" * 101],
    "description": ["", "two\nlines", "tab\there", "\x1b[31mred"],
    "author_name": ["", "A\nB", "a" * 201],
    # datasets that leave data/, or that Sacred would read as a number
    "dataset_name": ["..", ".", "a/b", "/etc", "../x", "-x", "", ".git", "1e5", "a b", "a" * 51],
    # what ssh would read as an option, a command or a port
    "remote": [
        *("-oProxyCommand=x", "a b", "me@-x", "-l@host", "host;id", "host:22", "$(id)", "a\nb"),
        *("@host", "me@", "h" * 301, "ssh://h", 'a"b'),
    ],
    "remote_gateway": ["-J", "me@gate -v", "gate,other", "`id`", "a'b"],
}
REFUSED = [(name, value) for name, values in CANNOT_WORK.items() for value in values]


@functools.cache
def compile_check() -> CodeType:
    source = (TEMPLATE / "hooks/pre_gen_project.py").read_text("utf-8")
    return compile(
        source.replace("{{ cookiecutter | tojson }}", "{}"), "pre_gen_project.py", "exec"
    )


@pytest.fixture
def check(tmp_path, monkeypatch):
    """The check of the answers, as a module of this process; its answers are good ones."""
    module = ModuleType("pre_gen_project")
    exec(compile_check(), vars(module))
    module.ANSWERS.update(dict.fromkeys(module.RULES, "") | module.EXAMPLES)
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    return module


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_an_answer_that_cannot_work_is_refused_with_rule_value_and_suggestion(
    check, capsys, name, value
):
    assert check.main() == 0
    check.ANSWERS[name] = value
    assert check.main() == 1
    assert_explained(capsys.readouterr().err, name, value)


def test_a_python_that_is_too_old_is_refused_with_the_command_that_takes_a_newer_one(
    check, capsys, monkeypatch
):
    check.ANSWERS["_template"] = "gh:ada/template"
    monkeypatch.setattr(sys, "version_info", (3, 9, 6))
    monkeypatch.delattr(sys, "stdlib_module_names")  # as in Python 3.9
    assert check.main() == 1
    assert "uvx --python 3.12 cookiecutter gh:ada/template\n" in capsys.readouterr().err


def test_an_answer_of_another_type_is_refused(check, capsys):
    for value in (5, True, ["a"], {"a": 1}, 1.5):
        for name in check.RULES:
            check.ANSWERS.update(dict.fromkeys(check.RULES, "") | check.EXAMPLES | {name: value})
            assert check.main() == 1
            assert_explained(capsys.readouterr().err, name, value)


@pytest.mark.parametrize("name", ["__answers_are_text", "__package", "__license_file"])
def test_a_private_answer_that_is_given_is_refused(check, capsys, name):
    good = {"__answers_are_text": [""], "__package": "my_experiment", "__license_file": "LICENSE"}
    check.ANSWERS.update(good)
    assert check.main() == 0
    for value in ("../../evil", "os", "", ["x"], [], 5, None):
        if value == good[name]:
            continue
        check.ANSWERS.update(good | {name: value})
        assert check.main() == 1
        assert_explained(capsys.readouterr().err, name, value)


@pytest.mark.slow
def test_a_private_answer_leads_nowhere_and_another_type_is_a_line(tmp_path):
    out = tmp_path / "a/b/out"
    out.mkdir(parents=True)
    answers = {"__package": "../../evil", "__license_file": "../../EVIL"}
    assert cookiecutter(out, skip=EVERY_STEP, **answers).returncode != 0
    assert list(out.iterdir()) == []
    assert not [*tmp_path.rglob("evil"), *tmp_path.rglob("EVIL")]
    config = tmp_path / "config.yaml"
    config.write_text("default_context:\n  author_name: {a: x}\n")
    done = cookiecutter(out, "--config-file", config, skip=EVERY_STEP)
    assert done.returncode != 0
    assert_explained(done.stdout.split("Traceback")[0], "author_name", {"a": "x"})
    assert list(out.iterdir()) == []


def assert_explained(message: str, name: str, value: str) -> None:
    assert f"{name} = {ascii(value)}" in message
    assert re.search(r"rule: \S", message)
    assert re.search(rf"try:  ({name}=|leave it empty)", message)
    assert message.isascii()


@pytest.mark.slow
@pytest.mark.parametrize("names", [["project_slug"], sorted(CANNOT_WORK.keys() - {"project_slug"})])
def test_what_is_refused_leaves_nothing_behind_and_its_suggestion_works(tmp_path, names, bake):
    """A wrong slug would also be the name of the folder."""
    wrong = {name: CANNOT_WORK[name][0] for name in names}
    (tmp_path / "out").mkdir()
    done = cookiecutter(tmp_path / "out", skip=EVERY_STEP, **wrong)
    assert done.returncode != 0
    assert list((tmp_path / "out").iterdir()) == []
    message, suggestions = done.stdout.split("Traceback")[0], {}
    for name, value in wrong.items():
        (part,) = re.findall(rf"^  {name} = .*\n(?:.*\n)*?    try:  .*$", message, re.M)
        assert_explained(part, name, value)
        suggestions[name] = re.search(rf"try:  (?:{name}=(.*)|leave it empty)", part)[1] or ""
    bake(**suggestions)


def show(command, rows=24, columns=80, **variables):
    """Run a command on a terminal; return its exit code, and the lines visible at its end."""
    pid, terminal = pty.fork()
    if not pid:
        os.execvpe(command[0], list(map(str, command)), {**os.environ, **variables})
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    output = b""
    while True:
        try:
            output += os.read(terminal, 65536)
        except OSError:  # nobody has the other side open
            break
    os.close(terminal)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    lines = output.decode().replace("\r\n", "\n").split("\n")
    cells = [line[at : at + columns] for line in lines for at in range(0, len(line) or 1, columns)]
    return code, cells[-rows:]


@pytest.fixture
def short_path():
    """A folder with a path that fits into a line; that of tmp_path does not with two workers."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.mark.slow
def test_a_wrong_slug_ends_with_rule_suggestion_and_a_command_that_keeps_the_other_answers(
    short_path,
):
    command = [
        sys.executable,
        "-m",
        "cookiecutter",
        "--no-input",
        TEMPLATE,
        "-o",
        short_path / "out",
    ]
    answers = ["author_name=Ana Muñoz", "description=It's a 'test'", "remote=ana@gpu1"]
    code, lines = show([*command, "project_slug=My Exp", *answers], DL_TEMPLATE_SKIP=EVERY_STEP)
    text = "\n".join(lines)
    assert code == 1
    assert "Traceback" not in text
    assert re.search(r"project_slug = 'My Exp'\n    rule: lower-case letters, digits", text), text
    assert "    try:  project_slug=my-exp\n" in text
    assert lines[-2:] == ["Aborted!", ""]
    assert not list((short_path / "out").iterdir())
    (again,) = re.findall(r"^  (cookiecutter .*?[^\\])$", text, re.M | re.S)
    environment = {**os.environ, "DL_TEMPLATE_SKIP": EVERY_STEP}
    environment["PATH"] = f"{os.path.dirname(sys.executable)}:{environment['PATH']}"
    subprocess.run(again, shell=True, check=True, env=environment)
    settings = tomllib.loads((short_path / "out/my-exp/pyproject.toml").read_text("utf-8"))
    assert settings["project"]["description"] == "It's a 'test'"
    assert settings["project"]["authors"] == [{"name": "Ana Muñoz"}]
    assert 'ssh = "gpu1"' in (short_path / "out/my-exp/machines.toml").read_text("utf-8")


@pytest.mark.slow
def test_on_a_terminal_an_empty_folder_that_existed_before_stays(tmp_path):
    (tmp_path / "My Exp").mkdir()
    command = [sys.executable, "-m", "cookiecutter", "--no-input", TEMPLATE, "-f", "-o", tmp_path]
    code, _ = show([*command, "project_slug=My Exp"], DL_TEMPLATE_SKIP=EVERY_STEP)
    assert code == 1
    assert (tmp_path / "My Exp").is_dir()


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_every_suggestion_is_an_answer_that_works(check, name, value):
    _, suggestion = check.find_refusal(name, value)
    assert suggestion != value
    assert check.find_refusal(name, suggestion) is None


@pytest.mark.slow
def test_an_empty_value_of_a_configuration_file_is_named(tmp_path):
    (tmp_path / "mine.yaml").write_text("default_context:\n  remote:\n  author_name:\n")
    options = ["--config-file", tmp_path / "mine.yaml"]
    message = cookiecutter(tmp_path / "out", *options, skip=EVERY_STEP).stdout.split("Traceback")[0]
    for name in ("remote", "author_name"):
        assert re.search(rf'  {name} = None\n    rule: null, .* write ""\n', message, re.S)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("slug", ["/absolute", "new/er/place", ".."])
def test_a_slug_that_names_another_folder_leaves_none_behind(tmp_path, slug):
    here = tmp_path / "deep" / "here"
    here.mkdir(parents=True)
    if slug == "/absolute":
        slug = f"{tmp_path}/absolute/new"
    before = sorted(tmp_path.rglob("*"))
    assert cookiecutter(here, skip=EVERY_STEP, project_slug=slug).returncode != 0
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("-f",)])
def test_an_empty_slug_writes_nothing_into_the_output_folder(tmp_path, options):
    (tmp_path / "mine").write_text("precious")
    done = cookiecutter(tmp_path, *options, skip=EVERY_STEP, project_slug="")
    assert done.returncode != 0
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.slow
def test_an_empty_folder_that_was_there_before_stays(tmp_path):
    old = tmp_path / "old"
    old.mkdir()
    born = os.stat(old).st_ctime
    while time.time() - born < 0.2:  # births are told apart by a tenth of a second
        pass
    cookiecutter(tmp_path / "elsewhere", skip=EVERY_STEP, project_slug=f"{old}/new")
    assert old.is_dir()
    assert not (old / "new").exists()


@pytest.mark.parametrize("slug", ["experiment", "abc_def", "a1", "x-2-y", "a" * 50])
def test_an_ordinary_slug_works(bake, slug):
    assert bake(project_slug=slug).path.name == slug


def test_the_slug_that_is_offered_begins_with_a_letter(bake):
    assert bake(project_name="2026: 3D Net").path.name == "d-net"


DIFFICULT = [
    "{{ 1/0 }} {% for x in y %} {# {% endraw %} {{ cookiecutter.__class__ }} }} %}",
    """It's "quoted" 'twice' \\back\\slash""",
    '''"""triple""" and \'\'\'triple\'\'\' # not a comment''',
    "$(touch pwned) `id` ${HOME} %s {0} ; rm -rf / | cat > x & $PATH",
    "naïve 日本語 Ωmega 👩‍🔬 🚀 <b>bold</b> <!-- comment",
    "# no heading, *no emphasis*, _none_, [no link](x), `no code`",
    "\\N{BULLET} \\x41 \\u0041 \\n \\",
    "- no list item",
    "''' + __import__('os').system('touch pwned') + '''",
]


@pytest.mark.parametrize("text", DIFFICULT)
def test_every_printable_character_arrives_unchanged(bake, text):
    answers = dict.fromkeys(("project_name", "description", "author_name"), text)
    path = bake(project_slug="x", **answers).path
    settings = tomllib.loads((path / "pyproject.toml").read_text("utf-8"))
    assert settings["tool"]["lab"]["title"] == text
    assert settings["project"]["description"] == text
    assert settings["project"]["authors"] == [{"name": text}]
    assert text in (path / "LICENSE").read_text("utf-8")
    assert paragraphs(path / "README.md")[:2] == [text, text]
    for notebook in path.glob("notebooks/*.ipynb"):
        metadata = json.loads(notebook.read_text("utf-8"))["metadata"]
        assert metadata["kernelspec"]["display_name"] == text
    assert not list(path.parent.rglob("pwned"))


def asked(**answers):
    """What cookiecutter makes of answers before the first hook runs."""
    context = generate_context(TEMPLATE / "cookiecutter.json", extra_context=answers)
    return prompt_for_config(context, no_input=True)


TEMPLATES = [
    "{% for x in range(10**6) %}{% endfor %}",
    "{{ cookiecutter.update(project_slug='../up') }}",
    "{% raw %}{{ 7 * 7 }}{% endraw %}{{ 7 * 7 }}",
    "{{ 'a' \"b\" \\x41 \\",
    "{# \r\n 🚀 \ud800 \x00 {{ '''",
    "{" * 100_000,
]


@pytest.mark.parametrize("text", TEMPLATES + DIFFICULT, ids=range(len(TEMPLATES + DIFFICULT)))
def test_an_answer_is_text_and_never_a_template(text):
    names = ("project_name", "project_slug", "description", "author_name", "remote", "dataset_name")
    answers = dict.fromkeys(names, text)
    assert answers.items() <= asked(**answers).items()


def test_no_command_line_renders_answers_as_templates():
    for name in ("__answers_are_text", "_render_only"):
        with pytest.raises(ValueError, match="choice"):
            asked(**{name: "{{ 7 * 7 }}"})


def test_derived_values_still_follow_from_the_answers():
    found = asked(project_name="{{ 7 * 7 }} Nets", open_source_license="none")
    assert found["project_slug"] == "nets"
    assert (found["__package"], found["__license_file"]) == ("nets", "")
    questions = json.loads((TEMPLATE / "cookiecutter.json").read_text("utf-8"))
    del questions["__answers_are_text"]
    templates = [text for text in questions.values() if isinstance(text, str) and "{" in text]
    assert questions["_render_only"] == templates


@pytest.mark.slow
def test_every_printable_character_arrives_unchanged_from_the_command_line(tmp_path):
    text = " ".join(DIFFICULT)
    done = cookiecutter(tmp_path, skip=EVERY_STEP, project_slug="x", description=text)
    assert done.returncode == 0, done.stdout
    settings = tomllib.loads((tmp_path / "x/pyproject.toml").read_text("utf-8"))
    assert settings["project"]["description"] == text
    assert not list(tmp_path.rglob("pwned"))


def paragraphs(path) -> list[str]:
    """The headings and paragraphs of a Markdown file as a reader sees them."""
    tokens = MarkdownIt().parse(path.read_text("utf-8"))
    return [
        "".join(part.content for part in token.children)
        for token in tokens
        if token.type == "inline"
    ]


@pytest.mark.parametrize(
    ("remote", "gateway", "shared", "personal"),
    [
        ("", "", {}, {}),
        ("gpu1", "", {"ssh": "gpu1"}, {}),
        (
            "ana@gpu1.lab.org",
            "ana-x@gate.lab.org",
            {"ssh": "gpu1.lab.org", "gateway": "gate.lab.org"},
            {"user": "ana", "gateway_user": "ana-x"},
        ),
        ("10.0.0.5", "gate", {"ssh": "10.0.0.5", "gateway": "gate"}, {}),
        ("me@fe80::1", "", {"ssh": "fe80::1"}, {"user": "me"}),
    ],
)
def test_the_remote_goes_into_machines_toml_and_the_user_name_does_not(
    bake, remote, gateway, shared, personal
):
    path = bake(remote=remote, remote_gateway=gateway).path
    machines = tomllib.loads((path / "machines.toml").read_text("utf-8"))
    local = tomllib.loads((path / "machines.local.toml").read_text("utf-8"))
    if shared:
        shared = {**shared, "folder": "lab/my-experiment"}
    assert machines.get("machines", {}).get("gpu", {}) == shared
    assert local.get("machines", {}).get("gpu", {}) == personal


def test_the_answers_lead_ssh_to_the_machine(bake, home, monkeypatch):
    project = bake(remote="ada@gpu1.example.org", remote_gateway="eve@gate.example.org")
    monkeypatch.setenv("LAB_PROJECT", str(project.path))
    command = connection.Connection(machines.get()).ssh_command("-G")
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for line in ("hostname gpu1.example.org", "user ada", "proxyjump gate.example.org"):
        assert f"{line}\n" in found


def test_every_name_that_would_hide_a_module_is_reserved(project):
    hook = (TEMPLATE / "hooks" / "pre_gen_project.py").read_text("utf-8")
    reserved = set(re.findall(r'"(\w+)"', hook[hook.index("IMPORTED =") : hook.index("NAME =")]))
    lock = (project.path / "requirements.txt").read_text("utf-8")
    packages = set(re.findall(r"^([\w-]+)==", lock, re.M))
    installed = next(project.path.glob(".venv/lib/python3*/site-packages"))
    modules = {re.split(r"[.-]", path.name)[0].lower() for path in installed.iterdir()}
    tests = {path.stem for path in project.path.glob("tests/*.py")}
    assert len(packages) > 100 and "sklearn" in modules and "conftest" in tests
    needed = {name.replace("-", "_") for name in packages | modules | tests} - {project.package}
    assert {name for name in needed if re.match("[a-z]", name)} <= reserved


def test_every_prompt_is_explained_and_every_derived_name_is_private():
    questions = json.loads((TEMPLATE / "cookiecutter.json").read_text("utf-8"))
    asked = [name for name in questions if not name.startswith("_")]
    assert asked == [
        "project_name",
        "project_slug",
        "description",
        "author_name",
        "dataset_name",
        "remote",
        "remote_gateway",
        "python_version",
        "open_source_license",
    ]
    assert list(questions["__prompts__"]) == asked
    # cookiecutter prints them with rich, which takes [words] in brackets for markup and hides them
    assert "[" not in "".join(map(str, questions["__prompts__"].values()))
