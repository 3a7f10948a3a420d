"""make release: one commit and one tag, or a reason and no change."""

import re
import subprocess
import sys

import pytest

from helpers.projects import VERSION, edit

NEWER = "{}.{}.0".format(*[int(part) + 1 for part in VERSION.split(".")[:2]])
pytestmark = pytest.mark.slow  # each copies the template


@pytest.fixture
def template(template_copy):
    """A copy of the template whose CHANGELOG says what is new."""
    log = template_copy.path / "lab/CHANGELOG.md"
    text = re.sub(r"(?ms)^## Unreleased\n.*?(?=^## )", "", log.read_text("utf-8"))
    new = "## Unreleased\n\n### Added\n\n- `lab dance`\n\n## "
    log.write_text(text.replace("## ", new, 1), "utf-8")
    template_copy.git("commit", "--quiet", "--all", "--message", "dance")
    return template_copy


def release(template, *arguments, **options) -> subprocess.CompletedProcess:
    return template.run(sys.executable, "scripts/release.py", *arguments, **options)


def test_a_release_is_one_commit_and_one_tag_with_everything_of_the_version(template):
    before = template.git("rev-parse", "HEAD")
    assert f"git push origin HEAD v{NEWER}" in release(template, NEWER).stdout
    assert template.git("rev-parse", f"v{NEWER}^{{}}~1") == before
    assert template.git("status", "--porcelain") == ""
    assert template.git("log", "-1", "--format=%s") == f"Release {NEWER}"
    project = template.path / "{{cookiecutter.project_slug}}"
    name = f"dl_remote_lab-{NEWER}-py3-none-any.whl"
    assert [path.name for path in project.glob("vendor/*")] == [name]
    assert f"\n./vendor/{name} # sha256 " in (project / "requirements.txt").read_text("utf-8")
    assert f'"dl-remote-lab=={NEWER}"' in (project / "pyproject.toml").read_text("utf-8")
    assert f'\nversion = "{NEWER}"\n' in (template.path / "lab/pyproject.toml").read_text("utf-8")
    log = (template.path / "lab/CHANGELOG.md").read_text("utf-8")
    assert re.search(rf"(?m)^## {re.escape(NEWER)} \(\d{{4}}-\d\d-\d\d\)$", log)
    assert "Unreleased" not in log
    assert "## lab\n\n### Added\n\n- `lab dance`\n" in release(template, "--notes", NEWER).stdout


def test_what_cannot_be_released_is_refused_and_changes_nothing(template):
    wrong = {VERSION: "not newer", "0.1.0": "not newer", "v9.0": "not a version", "": "not a"}
    for version, reason in wrong.items():
        expect_refusal(template, version, reason)

    draft = template.path / "draft.py"
    draft.touch()
    expect_refusal(template, NEWER, "the working tree has changes")
    draft.unlink()

    for log in ("lab/CHANGELOG.md", "CHANGELOG.md"):
        path = template.path / log
        path.write_text(re.sub(r"(?ms)^## Unreleased\n.*?(?=^## )", "", path.read_text("utf-8")))
    template.git("commit", "--quiet", "--all", "--message", "no dance")
    expect_refusal(template, NEWER, "'## Unreleased'")
    template.git("reset", "--quiet", "--hard", "HEAD^")

    template.git("config", "tag.gpgSign", "true")
    template.git("config", "user.signingKey", "none")
    expect_refusal(template, NEWER, "")
    template.git("config", "--unset", "tag.gpgSign")

    broken = 'build-backend = "x"'
    edit(template.path / "lab/pyproject.toml", 'build-backend = "uv_build"', broken)
    template.git("commit", "--quiet", "--all", "--message", "a broken build")
    expect_refusal(template, NEWER, "")


def expect_refusal(template, version, reason):
    before = template.git("rev-parse", "HEAD"), template.git("status", "--porcelain")
    done = release(template, version, check=False)
    assert done.returncode == 1
    assert reason in done.stdout
    assert (template.git("rev-parse", "HEAD"), template.git("status", "--porcelain")) == before
    assert template.git("tag") == ""
