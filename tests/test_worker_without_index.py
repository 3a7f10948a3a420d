"""A job's environment on a machine: made without a package index, and the last word in the job."""

import re
import subprocess

import pytest

from helpers.jobs import BOB, GO, start, until

FOLDER = "/home/bob/lab/my-experiment"
WHEELS = "/home/ada/wheels"
# No index answers here.
DEAD = '[machines.gpu.env]\nUV_DEFAULT_INDEX = "http://127.0.0.1:9/simple"\n'
SECRET = 's3cret-it\'s "$HOME" ü'
# What a user's profile may do: conda's Python first, GPUs of yesterday, and modules.
PROFILE = """
export PATH=/opt/conda/bin:/usr/bin:/bin CUDA_VISIBLE_DEVICES=7 TOKEN=old
module() {
    case $2 in cuda/12.4) export CUDA_HOME=/opt/$2 ;; *) echo "no module $2"; return 1 ;; esac
}
"""


@pytest.fixture(scope="session")
def wheels(tmp_path_factory):
    """A folder with uv, pip and the wheels of the remote tests' lock, from the package index."""

    def download(requirements: str):
        folder = tmp_path_factory.mktemp("wheels")
        pins = re.sub(r"(?m)^(\./|-e).*", "", requirements) + "uv>=0.9\npip\n"
        (folder / "in.txt").write_text(pins)
        command = [
            "uv",
            "tool",
            "run",
            "--python=3.11",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--dest",
            folder,
        ]
        command += [
            "--only-binary=:all:",
            "--python-version=3.11",
            "--requirement",
            folder / "in.txt",
        ]
        command += [f"--platform={tag}_x86_64" for tag in ("manylinux_2_28", "manylinux2014")]
        subprocess.run(command, check=True)
        return folder

    return download


def files_with(text: str, *folders) -> list[str]:
    """The files that contain a text."""
    command = ["grep", "-rlF", "-D", "skip", text, *folders]
    return subprocess.run(command, capture_output=True, text=True).stdout.splitlines()


def test_a_user_whose_machine_reaches_no_index_works_there_as_anywhere(laptop, wheels):
    hosts, worker = laptop.hosts, laptop.hosts.worker
    place = worker.path(FOLDER)
    settings = laptop.path / "machines.local.toml"
    settings.write_text(BOB + DEAD)
    kept = wheels((laptop.path / "requirements.txt").read_text())
    subprocess.run(["cp", "-r", kept, laptop.hosts.laptop.home / "wheels"], check=True)
    offline = {"UV_FIND_LINKS": WHEELS, "PIP_NO_INDEX": "1", "LAB_PATIENCE": "4"}

    # the wheels come from the laptop, and an interrupted copy is continued
    hosts.cut_after(20_000_000)
    done = laptop.lab("setup", env=offline, check=False)
    assert done.returncode == 1 and "wheels" in done.stdout, done.stdout + done.stderr
    assert not list(place.glob("envs/3.11-????????????"))
    hosts.traffic()
    said = laptop.lab("setup", env=offline, timeout=300)
    total = sum(path.stat().st_size for path in kept.glob("*.whl"))
    sent = hosts.traffic().up
    assert sent < total - 10_000_000, (sent, total)
    assert re.search(r"sending +wheels +\d+ of \d+ are sent, [\d.]+ MB", said), said
    assert "is ready" in said
    assert not (place / "wheels/incoming").exists()
    said = laptop.lab("setup", env=offline)
    assert "sending" not in said and hosts.traffic().up < 1_000_000

    # a job makes its environment again with no network at all
    for environment in place.glob("envs/3.11-*"):
        environment.rename(place / "was")
    worker.write("../bob/.bash_profile", PROFILE)
    settings.write_text(f'{BOB}prelude = ["module load cuda/12.4"]\n{DEAD}A = "1"\n')
    show = "python -c \"import numpy, os; print(os.environ['VIRTUAL_ENV'])\"; "
    show += 'echo "$CUDA_HOME $CUDA_VISIBLE_DEVICES $A $B"; printf %s "$TOKEN" | sha256sum; '
    command = ["--gpus", "0", "--env", "A=2", "--env", "B", "--secret", "TOKEN"]
    command += ["--", "bash", "-lc", show + GO.format("/tmp/go")]
    id = start(laptop, *command, env={"TOKEN": SECRET, "B": "3"}, timeout=300)
    log = place / "jobs" / id / "output.log"
    until(lambda: log.read_text().endswith("  -\n"), what="the output")
    environment, given, digest = log.read_text().splitlines()[-3:]
    assert environment.startswith(f"{FOLDER}/envs/3.11-")
    assert given == "/opt/cuda/12.4  2 3"
    expected = subprocess.run(["sha256sum"], input=SECRET, stdout=-1, text=True).stdout
    assert digest == expected.strip()

    # the secret is in no file and in no process list of either computer
    for host in (hosts.laptop, worker, hosts.gateway):
        places = [host.path(f"/{name}") for name in ("home", "tmp", "var/tmp", "run", "dev/shm")]
        assert not files_with("s3cret", *places)
        assert not [line for line in host.processes() if "s3cret" in line[2]]
    worker.path("/tmp/go").touch()
    until((place / "jobs" / id / "exit_code").exists, what="the end")
    assert not files_with("s3cret", worker.path("/home"), hosts.laptop.path("/home"))

    # a prelude that fails is named by its line, by lab setup as well
    settings.write_text(f'{BOB}prelude = ["true", "module load cuda/99"]\n{DEAD}')
    done = laptop.lab("setup", env=offline, check=False)
    assert done.returncode == 1 and "module load cuda/99" in done.stderr
