"""What is installed is compared with the lock, package by package."""

import hashlib
import zipfile

import pytest

from lab.environment import installed, lock
from lab.recording import package
from lab.runs import reproduce

LOCK = """\
# a comment
./vendor/dl_remote_lab-1.0.0-py3-none-any.whl # sha256 00
Jinja2==3.1.6
numpy==2.4.6 ; python_full_version >= '3.10'
numpy==1.0 ; python_full_version < '3.0'
torch==2.13.0
typing-extensions==4.15.0
-e .
"""
AS_LOCKED = ("jinja2-3.1.6", "numpy-2.4.6", "torch-2.13.0+cpu", "typing_extensions-4.15.0")
OURS = ("my_experiment-0.1.0", "dl_remote_lab-1.0.0", "nvidia_cublas_cu12-12.1", "triton-3.1")


@pytest.fixture
def install(project, tmp_path):
    """A function that makes an environment of these packages, and says how it differs."""
    (project / "requirements.txt").write_text(LOCK)

    def differences(*packages):
        environment = tmp_path / "-".join(packages)[:50]
        for one in packages:
            (environment / f"lib/python3.11/site-packages/{one}.dist-info").mkdir(parents=True)
        return installed.find_differences(environment)

    return differences


def test_an_environment_of_the_lock_has_no_differences_nor_have_torch_s_cuda_libraries(install):
    assert install(*AS_LOCKED, *OURS) == []


def test_a_lock_has_packages_whose_names_begin_with_a_digit():
    pins = "2captcha-python==1.2\nnumpy==2.4.6\n"
    assert lock.extract_pins(f"# a comment\n--find-links ./vendor\n./x.whl\n{pins}-e .\n") == pins


@pytest.mark.parametrize(
    ("replaced", "by", "said"),
    [
        ("numpy-2.4.6", ["numpy-2.0.1"], "numpy 2.0.1, locked 2.4.6"),
        ("jinja2-3.1.6", [], "jinja2 is missing, locked 3.1.6"),
        ("jinja2-3.1.6", ["jinja2-3.1.6", "lion_pytorch-0.2"], "lion-pytorch 0.2, not locked"),
        ("torch-2.13.0+cpu", ["torch-2.12.0+cpu"], "torch 2.12.0+cpu, locked 2.13.0"),
    ],
)
def test_another_version_a_missing_and_an_extra_package_are_named(install, replaced, by, said):
    packages = [name for name in AS_LOCKED if name != replaced]
    assert install(*packages, *by, *OURS) == [said]


def test_a_renamed_project_is_not_an_extra_package_and_another_editable_one_is(project, tmp_path):
    (project / "requirements.txt").write_text("-e .\n")
    site = tmp_path / ".venv/lib/python3.11/site-packages"
    for name, folder in (("sugar", tmp_path), ("other", tmp_path / "elsewhere")):
        info = site / f"{name}-0.1.0.dist-info"
        info.mkdir(parents=True)
        (info / "direct_url.json").write_text(f'{{"url": "{folder.as_uri()}"}}')
    assert installed.find_differences(tmp_path / ".venv") == ["other 0.1.0, not locked"]


def test_a_project_without_a_lock_has_nothing_to_differ_from(project, tmp_path):
    assert installed.find_differences(tmp_path) == []


@pytest.mark.parametrize("differences", [[], ["numpy is 1.0, not 2.4.6"]])
def test_reproduce_takes_an_environment_only_if_all_in_it_is_as_locked(
    project, monkeypatch, differences
):
    """The hash of an environment's lock does not show what pip has changed since."""
    (project / "requirements.txt").write_text(LOCK)
    stamp = {"lock": reproduce.sha256_or_none(project / "requirements.txt"), "python": "3.11"}
    built = []
    monkeypatch.setattr(reproduce, "read_stamp", lambda _: stamp)
    monkeypatch.setattr(reproduce, "find_differences", lambda *_: differences)
    monkeypatch.setattr(reproduce, "run_command", lambda *words, **_: built.append(words))
    python = reproduce.prepare_environment(project, {})
    assert (python == reproduce.sys.executable) == (not built) == (not differences)


def test_files_of_lab_that_are_not_as_in_the_wheel_are_named(tmp_path):
    wheel, dist_info = (
        tmp_path / "dl_remote_lab-1.0.0-py3-none-any.whl",
        "dl_remote_lab-1.0.0.dist-info",
    )

    def pack(**contents: str) -> None:
        lines = ["dl_remote_lab-1.0.0.dist-info/RECORD,,\n"]
        for name, text in contents.items():
            digest = package.to_base64(hashlib.sha256(text.encode()).digest())
            lines.append(f"lab/{name}.py,sha256={digest},{len(text)}\n")
        with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"{dist_info}/RECORD", "".join(lines))

    (tmp_path / "lab").mkdir()
    for name in ("same", "edited"):
        (tmp_path / f"lab/{name}.py").write_text(f"{name}\n")
    pack(same="same\n", edited="as it was\n", removed="")

    def find() -> list[str]:
        return package.find_changed_files(tmp_path, wheel, tmp_path / dist_info)

    assert find() == ["lab/edited.py", "lab/removed.py"]
    pack(same="same\n", edited="edited\n")
    assert find() == [], "the wheel was replaced while this process runs"
    wheel.write_bytes(wheel.read_bytes()[:-30])
    assert find() == [wheel.name]


def test_a_hash_is_written_as_wheels_do():
    digest = bytes([251, 255, *range(30)])
    assert package.to_base64(digest) == "-_8AAQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0"
