"""Release a version: numbers, CHANGELOGs, wheel, commit and tag, or nothing at all.

make release VERSION=2.0.0
python scripts/release.py --notes 2.0.0    what the CHANGELOGs say about it
"""

import argparse
import datetime
import re
import subprocess
import sys

import wheel

LOGS = {"lab": wheel.ROOT / "lab/CHANGELOG.md", "The template": wheel.ROOT / "CHANGELOG.md"}
SETTINGS = (wheel.ROOT / "lab/pyproject.toml", wheel.ROOT / "pyproject.toml")
VERSION = re.compile(r'(?m)^version = "(.*)"$')


def run_git(*arguments: str) -> str:
    """Run git in the repository and return what it printed; exit if it fails."""
    command = ["git", "-C", str(wheel.ROOT), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"release: git {arguments[0]} failed.")
    return done.stdout.strip()


def read_sections(title: str) -> dict[str, str]:
    """Return the section `## TITLE` of each CHANGELOG that has it, without its heading."""
    pattern = rf"(?ms)^## {re.escape(title)}(?: [^\n]*)?\n(.*?)(?=^## |\Z)"
    found = {name: re.search(pattern, log.read_text("utf-8")) for name, log in LOGS.items()}
    return {name: section[1].strip() for name, section in found.items() if section}


def find_obstacle(version: str) -> str | None:
    """Return why this version cannot be released now, or None."""
    current = VERSION.search(SETTINGS[0].read_text("utf-8"))[1]
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        return f"{version!r} is not a version such as 1.2.3."
    numbers = [[int(part) for part in re.findall(r"\d+", text)[:3]] for text in (version, current)]
    if numbers[0] <= numbers[1]:
        return f"{version} is not newer than {current}."
    if run_git("status", "--porcelain"):
        return "the working tree has changes. Commit them first."
    if run_git("tag", "--list", f"v{version}"):
        return f"the tag v{version} already exists."
    if not re.search(r"(?m)^- ", "\n".join(read_sections("Unreleased").values())):
        return "neither CHANGELOG has anything under '## Unreleased'. Say what is new."
    return None


def write_version(version: str) -> None:
    """Set the version, and give the unreleased changes its number and today's date."""
    for path in SETTINGS:
        text = VERSION.sub(f'version = "{version}"', path.read_text("utf-8"), count=1)
        path.write_text(text, "utf-8")
    title = f"## {version} ({datetime.date.today().isoformat()})"
    for path in LOGS.values():
        text = re.sub(r"(?m)^## Unreleased$", title, path.read_text("utf-8"))
        path.write_text(text, "utf-8")


def release(version: str) -> None:
    before = run_git("rev-parse", "HEAD")
    try:
        write_version(version)
        wheel.main()
        run_git("add", "--all")
        run_git("commit", "--quiet", "--message", f"Release {version}")
        run_git("tag", "--annotate", f"v{version}", "--message", f"Release {version}")
    except BaseException:
        run_git("reset", "--quiet", "--hard", before)
        run_git("clean", "--quiet", "--force", "--", str(wheel.VENDOR))
        raise
    print(f"{version} is committed and tagged. Publish it: git push origin HEAD v{version}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--notes", action="store_true", help="only print its CHANGELOG sections")
    parser.add_argument("version", metavar="VERSION")
    arguments = parser.parse_args()
    if arguments.notes:
        for name, section in read_sections(arguments.version).items():
            print(f"## {name}\n\n{section}\n")
    elif obstacle := find_obstacle(arguments.version):
        sys.exit(f"release: {obstacle}")
    else:
        release(arguments.version)


if __name__ == "__main__":
    main()
