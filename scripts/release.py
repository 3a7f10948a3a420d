"""Release a version: numbers, CHANGELOGs, wheel, commit and tag, or nothing at all.

make release VERSION=1.1.0
python scripts/release.py --notes 1.1.0    what the CHANGELOG says about it
"""

import argparse
import datetime
import re
import subprocess
import sys

import wheel

LOG = wheel.ROOT / "lab/CHANGELOG.md"
LOGS = (LOG, wheel.ROOT / "CHANGELOG.md")
SETTINGS = (wheel.ROOT / "lab/pyproject.toml", wheel.ROOT / "pyproject.toml")
VERSION = re.compile(r'(?m)^version = "(.*)"$')


def run_git(*arguments: str) -> str:
    """Run git in the repository and return what it printed; exit if it fails."""
    command = ["git", "-C", str(wheel.ROOT), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"release: git {arguments[0]} failed.")
    return done.stdout.strip()


def read_section(title: str) -> str:
    """Return the section `## TITLE` of lab's CHANGELOG, without its heading."""
    found = re.search(
        rf"(?ms)^## {re.escape(title)}(?: [^\n]*)?\n(.*?)(?=^## |\Z)", LOG.read_text("utf-8")
    )
    return found[1].strip() if found else ""


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
    if not re.search(r"(?m)^- ", read_section("Unreleased")):
        return "lab/CHANGELOG.md has nothing under '## Unreleased'. Say what is new."
    return None


def write_version(version: str) -> None:
    """Set the version, and give the unreleased changes its number and today's date."""
    for path in SETTINGS:
        text = VERSION.sub(f'version = "{version}"', path.read_text("utf-8"), count=1)
        path.write_text(text, "utf-8")
    title = f"## {version} ({datetime.date.today().isoformat()})"
    for path in LOGS:
        text = re.sub(r"(?m)^## Unreleased$", title, path.read_text("utf-8"))
        path.write_text(text, "utf-8")


def release(version: str) -> None:
    try:
        write_version(version)
        wheel.main()
        run_git("add", "--all")
        run_git("commit", "--quiet", "--message", f"Release {version}")
        run_git("tag", "--annotate", f"v{version}", "--message", f"Release {version}")
    except BaseException:
        run_git("reset", "--quiet", "--hard")
        run_git("clean", "--quiet", "--force", "--", str(wheel.VENDOR))
        raise
    print(f"{version} is committed and tagged. Publish it: git push origin HEAD v{version}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--notes", action="store_true", help="only print its CHANGELOG section")
    parser.add_argument("version", metavar="VERSION")
    arguments = parser.parse_args()
    if arguments.notes:
        print(read_section(arguments.version))
    elif obstacle := find_obstacle(arguments.version):
        sys.exit(f"release: {obstacle}")
    else:
        release(arguments.version)


if __name__ == "__main__":
    main()
