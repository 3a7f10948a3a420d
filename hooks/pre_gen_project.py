"""Refuse an old cookiecutter, and answers that cannot work, before the first file is written.

Each rule is a small function: it returns None, or the rule in words and a value that would pass.
"""

import json
import keyword
import os
import re
import sys
import unicodedata

OLDEST = (2, 2, 3)  # of cookiecutter; README.md names it

# tojson escapes every quote of this kind, so no answer can end the string.
ANSWERS = json.loads(r'''{{ cookiecutter | tojson }}''')  # fmt: skip

# A package in src/ with one of these names would hide the real one. They are the names under which
# packages are installed and imported: of the lock, of torch for a GPU, of the extra mongo.
# tests/test_answers.py compares this with requirements.txt and an environment.
IMPORTED = {
    "absl", "absl_py", "accelerate", "annotated_types", "anyio", "appnope", "argon2", "argon2_cffi",
    "argon2_cffi_bindings", "arrow", "asttokens", "async_lru", "attr", "attrs", "babel",
    "beautifulsoup4", "bleach", "bs4", "bson", "certifi", "cffi", "charset_normalizer", "click",
    "cloudpickle", "colorama", "comm", "contourpy", "cpuinfo", "cuda", "cycler", "dateutil",
    "debugpy", "decorator", "defusedxml", "dl_remote_lab", "docopt", "docopt_ng",
    "exceptiongroup", "executing",
    "fastjsonschema", "filelock", "fonttools", "fqdn", "fsspec", "functorch", "git", "gitdb",
    "gitpython", "google", "gridfs", "grpc", "grpcio", "h11", "hf_xet", "httpcore", "httpcore2",
    "httpx", "httpx2", "httpx2_jsfetch", "huggingface_hub", "idna", "iniconfig", "ipykernel",
    "ipykernel_launcher", "ipython", "ipython_pygments_lexers", "ipywidgets", "isoduration",
    "isympy", "jedi", "jinja2", "joblib", "json5", "jsonpickle", "jsonpointer", "jsonschema",
    "jsonschema_specifications", "jupyter", "jupyter_builder", "jupyter_client", "jupyter_console",
    "jupyter_core", "jupyter_events", "jupyter_lsp", "jupyter_server", "jupyter_server_terminals",
    "jupyterlab", "jupyterlab_pygments", "jupyterlab_server", "jupyterlab_widgets", "kiwisolver",
    "lark", "markdown", "markupsafe", "matplotlib", "matplotlib_inline", "mistune", "mpl_toolkits",
    "mpmath", "munch", "narwhals", "nbclient", "nbconvert", "nbformat", "nest_asyncio2", "networkx",
    "notebook", "notebook_shim", "numpy", "nvidia", "overrides", "packaging", "pandas",
    "pandocfilters", "parso", "pexpect", "pil", "pillow", "pip", "pkg_resources", "platformdirs",
    "pluggy", "prometheus_client", "prompt_toolkit", "protobuf", "psutil", "ptyprocess",
    "pure_eval", "py", "py_cpuinfo", "pycparser", "pydantic", "pydantic_core", "pygments", "pylab",
    "pymongo",
    "pyparsing", "pytest", "python_dateutil", "python_json_logger", "pythonjsonlogger", "pytz",
    "pywinpty", "pyyaml", "pyzmq", "referencing", "requests", "rfc3339_validator",
    "rfc3986_validator", "rfc3987_syntax", "rpds", "rpds_py", "ruff", "sacred", "safetensors",
    "scikit_learn", "scipy", "send2trash", "setuptools", "six", "sklearn", "smmap", "soupsieve",
    "stack_data", "sympy", "tensorboard", "tensorboard_data_server", "terminado", "threadpoolctl",
    "tinycss2", "tomli", "torch", "torchgen", "tornado", "tqdm", "traitlets", "triton",
    "truststore", "typing_extensions", "typing_inspection", "tzdata", "uri_template", "urllib3",
    "wcwidth", "webcolors", "webencodings", "websocket", "websocket_client", "werkzeug",
    "widgetsnbextension", "winpty", "wrapt", "yaml", "zmq",
}  # fmt: skip
# Modules that only some versions of Python have, or that Python imports without listing them.
STANDARD = {
    "aifc", "asynchat", "asyncore", "audioop", "binhex", "cgi", "cgitb", "chunk", "crypt",
    "distutils", "imghdr", "imp", "lib2to3", "mailcap", "msilib", "nis", "nntplib", "ossaudiodev",
    "pipes", "sitecustomize", "smtpd", "sndhdr", "spwd", "sunau", "telnetlib", "test", "tomllib",
    "usercustomize", "uu", "xdrlib",
}  # fmt: skip
# The project's own modules; pytest imports those in tests/ by their bare names.
OWN = {"bootstrap", "conftest", "lab", "test_data", "test_experiment"}
# Kernel names that every Jupyter already has.
KERNELS = {"python", "python2", "python3"}

NAME = "[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?"
USER = "[A-Za-z0-9_][A-Za-z0-9._-]*"
IPV6 = "[0-9A-Fa-f]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(%[A-Za-z0-9]+)?"


def blank(text):
    if not text.strip():
        return "it must not be blank", None


def unprintable(text):
    """Line breaks, control characters and lone surrogates; all other characters are fine."""
    clean = "".join(
        " " if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") else character
        for character in text
    )
    if clean != text:
        return "no line breaks and no control characters", " ".join(clean.split())


def longer_than(limit):
    def rule(text):
        if len(text) > limit:
            return f"at most {limit} characters", text[:limit].rstrip("-_. ")

    return rule


def slug_characters(text):
    if not re.fullmatch("[a-z][a-z0-9]*([-_][a-z0-9]+)*", text):
        words = re.findall("[a-z0-9]+", os.path.basename(text).lower())
        suggestion = "-".join(words).lstrip("0123456789-")[:50].rstrip("-")
        return (
            "lower-case letters, digits and single - or _ between them, beginning with a letter,"
            " so that it is a folder, a Jupyter kernel and a Python package at once",
            suggestion or "my-experiment",
        )


def slug_reserved(text):
    package = text.replace("-", "_")
    if keyword.iskeyword(package):
        return "a Python keyword cannot be the name of a package", f"my-{text}"
    if package in sys.stdlib_module_names or package in STANDARD:
        return "it would hide a module of Python's standard library", f"my-{text}"
    if package in OWN:
        return "the project already has a module of that name", f"my-{text}"
    if package in IMPORTED:
        return "it would hide a package that the project needs", f"my-{text}"
    if package in KERNELS:
        return "every Jupyter has a kernel of that name", f"my-{text}"


def folder_characters(text):
    if not re.fullmatch("[A-Za-z][A-Za-z0-9._-]*", text):
        cleaned = re.sub("[^A-Za-z0-9_-]+", "-", os.path.basename(text)).lstrip("0123456789-_")
        return (
            "letters, digits, '.', '_' and '-', beginning with a letter, so that it stays"
            " one folder inside data/",
            cleaned[:50].rstrip("-") or "digits",
        )


def ssh_destination(text):
    """`[user@]host` or an alias of ~/.ssh/config; nothing that ssh would read as an option."""
    if text and not re.fullmatch(f"({USER}@)?({NAME}|{IPV6})", text):
        host = re.search(NAME, re.sub(r"^\W+|:\d+$", "", text.split("@")[-1].split("//")[-1]))
        return (
            "[user@]host or an ssh alias: letters, digits, '.', '_' and '-', not beginning with -"
            " (ports, keys and options belong in machines.toml or ~/.ssh/config)",
            host.group() if host else "",
        )


RULES = {
    "project_name": (blank, unprintable, longer_than(100)),
    "project_slug": (blank, longer_than(50), slug_characters, slug_reserved),
    "description": (blank, unprintable),
    "author_name": (blank, unprintable, longer_than(200)),
    "dataset_name": (blank, longer_than(50), folder_characters),
    "remote": (longer_than(300), ssh_destination),
    "remote_gateway": (longer_than(300), ssh_destination),
}
EXAMPLES = {
    "project_name": "My Experiment",
    "project_slug": "my-experiment",
    "description": "A deep-learning experiment.",
    "author_name": "Your Name",
    "dataset_name": "digits",
}


def find_refusal(name, value):
    """Return (rule, suggestion) for the first rule that a value breaks, or None if it can work."""
    if value is None:
        return 'null, as from "name:" in a YAML file, is not text: write ""', EXAMPLES.get(name)
    if not isinstance(value, str):
        return f"it has to be text, not {ascii(value)[:40]}: put it in quotes", EXAMPLES.get(name)
    for rule in RULES[name]:
        broken = rule(value)
        if broken:
            suggestion = broken[1] or EXAMPLES.get(name, "")
            better = find_refusal(name, suggestion)  # a suggestion must pass every rule, too
            return broken[0], better[1] if better else suggestion
    return None


def find_refusals(answers):
    """Return (name, value, rule, suggestion) for each answer that cannot work."""
    found = [(name, answers[name], find_refusal(name, answers[name])) for name in RULES]
    broken = [(name, value, *why) for name, value, why in found if why]
    return broken or list(find_private(answers))


def find_private(answers):
    """Yield the same for private answers that were given: they could name files anywhere."""
    chosen = answers.get("open_source_license")
    derived = {
        "__answers_are_text": [""],
        "__package": answers["project_slug"].replace("-", "_"),
        "__license_file": "" if chosen == "none" else "LICENSE",
    }
    for name, value in derived.items():
        if answers.get(name, value) != value:
            yield name, answers[name], "it follows from the other answers: do not give it", value


def describe_unsaved_work():
    """Return why the files of an existing project (`cookiecutter -f`) must not be overwritten."""
    if not set(os.listdir(".")) - {".git"}:
        return None
    import subprocess  # slow to import, and rarely needed

    def git(*arguments):
        command = ["git", *arguments, "--", "."]
        options = {"capture_output": True, "text": True, "encoding": "utf-8", "check": True}
        return subprocess.run(command, **options).stdout.splitlines()

    try:
        tracked = git("ls-files")
        changes = git("status", "--porcelain", "--untracked-files=no")
        # also what only the user's own settings ignore
        changes += git("ls-files", "--others", "--exclude-per-directory=.gitignore")
    except OSError:
        return "it already has files, and without git nobody can tell whether they are saved"
    except subprocess.CalledProcessError:
        tracked = []
    if not tracked:  # no repository, or one around the project that ignores it
        return "it already has files that git does not track"
    if changes:
        return f"it has {len(changes)} changes that are not committed, such as {ascii(changes[0])}"
    return None


def print_block(*lines):
    """Print lines in a frame, so that they stand out from what cookiecutter prints."""
    rule = "=" * 78
    print("", rule, *lines, rule, "", sep="\n", file=sys.stderr, flush=True)


def wrap_rule(rule):
    from textwrap import fill  # only when something is refused

    return fill(rule, 78, initial_indent="    rule: ", subsequent_indent=" " * 10)


def find_old_version():
    """Return the version of cookiecutter if it is too old, or None.

    It is read from the name of its metadata: importing cookiecutter takes as long as all else here.
    """
    for folder in filter(os.path.isdir, sys.path):
        for name in os.listdir(folder):
            found = re.fullmatch(r"cookiecutter-(\d+(?:\.\d+)*).*\.(?:dist|egg)-info", name)
            if found:
                numbers = tuple(map(int, found[1].split(".")[:3]))
                return found[1] if numbers < OLDEST else None
    return None  # without metadata beside it, as new versions may be installed


def format_command(corrections):
    """Return the command that gives all answers again, with these corrections, in lines for sh."""
    from shlex import quote

    output = ANSWERS["_output_dir"]
    in_output = output == os.path.realpath(os.environ.get("PWD", ""))
    words = ["cookiecutter", "--no-input", ANSWERS["_template"]]
    words += ["-c", ANSWERS["_checkout"]] if ANSWERS.get("_checkout") else []
    words += [] if in_output else ["-o", output]
    others = {name: ANSWERS[name] for name in ANSWERS if name[0] != "_" and ANSWERS[name]}
    words += [f"{name}={value}" for name, value in {**corrections, **others, **corrections}.items()]
    lines = [" "]
    for word in map(quote, words):
        if len(lines[-1]) + len(word) > 74:
            lines[-1] += " \\"
            lines.append("     ")
        lines[-1] += f" {word}"
    return lines


def end_cookiecutter(project):
    """On a terminal, end cookiecutter as Ctrl-C does, once `project` is removed.

    Newer versions print a traceback when a hook fails, and the reason would scroll out of sight.
    """
    if not (sys.stdout.isatty() and sys.stderr.isatty()):
        return
    import signal
    import subprocess
    import time

    parent = os.getppid()
    command = ["ps", "-o", "args=", "-p", str(parent)]
    try:
        words = subprocess.run(command, capture_output=True, text=True).stdout.split()
        keeps = [word for word in words if re.match("-[a-z]*[fs]|--(over|skip|keep)", word)]
        if keeps or "cookiecutter" not in map(os.path.basename, words[:3]):
            return  # the folder may be older than this run, or this is another program
        if os.path.isdir(project):
            os.rmdir(project)
        os.kill(parent, signal.SIGINT)
    except OSError:  # there is no ps, or the folder is not empty
        return
    time.sleep(0.2)  # a hook that has failed meanwhile would be reported first


def read_birth_time(path):
    """Return when a folder was created, in seconds since 1970; 0 if the system does not say."""
    status = os.stat(path)
    if hasattr(status, "st_birthtime"):
        return status.st_birthtime
    import subprocess  # slow to import, and rarely needed

    try:
        stat = subprocess.run(["stat", "-c", "%.9W", path], capture_output=True, text=True)
        return float(stat.stdout)
    except (OSError, ValueError):
        return 0


def remove_new_parents():
    """Remove the empty folders that a slug such as a/b/c made above the project's own.

    cookiecutter itself removes only the innermost one. Their creation times tell which are new: a
    folder that existed before, even an empty one, stays.
    """
    project = os.getcwd()
    output = os.path.realpath(ANSWERS.get("_output_dir") or project)
    born = read_birth_time(project)
    new = [project]
    parent = os.path.dirname(project)
    while (
        born
        and parent != output
        and os.listdir(parent) == [os.path.basename(new[-1])]
        and 0 <= born - read_birth_time(parent) < 0.1
    ):
        new.append(parent)
        parent = os.path.dirname(parent)
    if len(new) > 1 and not os.listdir(project):
        os.chdir(parent)
        for folder in new:
            os.rmdir(folder)


def refuse_answers(broken):
    """Print each broken rule with a suggestion, then the command that takes all suggestions."""
    lines = ["This project was not created: an answer cannot work.", ""]
    for name, value, rule, suggestion in broken:
        advice = f"{name}={suggestion}" if suggestion else "leave it empty"
        lines += [f"  {name} = {ascii(value)}", wrap_rule(rule), f"    try:  {advice}", ""]
    if "_output_dir" in ANSWERS:  # else this is cruft
        corrections = {name: suggestion for name, _, _, suggestion in broken if name[0] != "_"}
        lines += ["With that, and your other answers as they were:"]
        lines += [*format_command(corrections), ""]
    print_block(*lines[:-1])
    if any(name == "project_slug" for name, *_ in broken):
        remove_new_parents()


def main():
    sys.stderr.reconfigure(errors="backslashreplace")
    project = os.getcwd()
    version = find_old_version()
    old_python = sys.version_info < (3, 10)
    broken = [] if version or old_python else find_refusals(ANSWERS)
    if old_python:
        print_block(
            f"This project was not created: cookiecutter runs on Python {sys.version.split()[0]}.",
            "",
            "  The template needs Python 3.10 or newer, for instance:",
            f"    uvx --python 3.12 cookiecutter {ANSWERS['_template']}",
        )
    elif version:
        oldest = ".".join(map(str, OLDEST))
        print_block(
            f"This project was not created: cookiecutter {version} is too old for it.",
            "",
            f"  The template needs cookiecutter {oldest} or newer. Upgrade it, for instance with",
            "  pipx install cookiecutter, or run a new one without installing it:",
            f"    uvx cookiecutter {ANSWERS['_template']}",
        )
    elif broken:
        refuse_answers(broken)
    elif reason := describe_unsaved_work():
        print_block(
            f"Nothing was written into {ascii(os.path.basename(project))}: {reason}.",
            "",
            "  The template would overwrite files there. Commit them first (git add -A, with",
            "  --force for what only your own settings ignore; git commit), then run",
            "  cookiecutter again; or choose another project_slug.",
        )
    else:
        if os.path.exists("machines.local.toml"):  # personal, and in no commit: it is put back
            os.replace("machines.local.toml", "machines.local.toml.saved")
        return 0
    end_cookiecutter(project)
    return 1


if __name__ == "__main__":
    sys.exit(main())
