"""The project's Jupyter kernel: its name follows the project's, and the user's files stay."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lab.ground import project as current


@pytest.fixture
def kernel(project, tmp_path, monkeypatch):
    """The module, as with ipykernel, with kernels and an environment of this test alone."""
    monkeypatch.setitem(sys.modules, "jupyter_core", SimpleNamespace())
    paths = SimpleNamespace(jupyter_data_dir=str)  # not a package of these tests
    monkeypatch.setitem(sys.modules, "jupyter_core.paths", paths)
    from lab.environment import kernel

    monkeypatch.setattr(kernel, "jupyter_data_dir", lambda: str(tmp_path / "jupyter"))
    monkeypatch.setattr(kernel, "find_spec", lambda name: True)
    monkeypatch.setattr(kernel, "import_module", lambda name: None)
    config = tmp_path / "environment/jupyter_server_config.json"
    monkeypatch.setattr(kernel, "server_config", lambda: config)
    return kernel


def rename(project: Path, name: str) -> None:
    settings = project / "pyproject.toml"
    settings.write_text(settings.read_text().replace("my-experiment", name))
    current.reload()


def test_after_a_rename_the_kernel_and_the_notebooks_have_the_new_name(kernel, project):
    (project / ".gitattributes").write_bytes(b"# \xfc\n*.ipynb filter=notebook-output\n")
    notebook = project / "notebooks/a.ipynb"
    notebook.parent.mkdir()
    notebook.write_text(json.dumps({"metadata": {}}))
    assert kernel.install() == "my-experiment; written into a.ipynb"
    rename(project, "sugar")
    assert kernel.install() == "sugar; written into a.ipynb"
    assert [one.name for one in kernel.list_kernels()] == ["sugar"]
    assert json.loads(notebook.read_text())["metadata"]["kernelspec"]["name"] == "sugar"
    assert json.loads(kernel.server_config().read_text()) == {
        "KernelSpecManager": {"allowed_kernelspecs": ["sugar"]}
    }


def test_a_second_clone_keeps_its_number_and_leaves_the_first_alone(kernel, project, monkeypatch):
    other = project.parent / "other"
    other.mkdir()
    (other / "pyproject.toml").write_text((project / "pyproject.toml").read_text())
    assert kernel.install() == "my-experiment"
    monkeypatch.setenv("LAB_PROJECT", str(other))
    current.reload()
    why = f"because the name my-experiment belongs to {project}"
    assert kernel.install() == f"my-experiment-2; {why}"
    assert [one.name for one in kernel.list_kernels()] == ["my-experiment", "my-experiment-2"]
    assert kernel.install() == f"my-experiment-2; {why}"


@pytest.mark.parametrize(
    "text",
    [
        "{}\n",
        '{"KernelSpecManager": {"allowed_kernelspecs": ["my-experiment", "mine"]}}\n',
        b"\xff",
    ],
)
def test_a_configuration_of_jupyter_that_the_user_wrote_stays(kernel, text):
    config = kernel.server_config()
    config.parent.mkdir()
    config.write_bytes(text if isinstance(text, bytes) else text.encode())
    before = config.read_bytes()
    kernel.install()
    assert kernel.remove() == ["my-experiment"] and config.read_bytes() == before
    config.unlink()
    kernel.install()
    assert config.exists()
    kernel.remove()
    assert not config.exists()
