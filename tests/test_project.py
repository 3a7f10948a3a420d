"""What the generated project promises is done in one: its README, its notebooks, its tests."""

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from helpers.projects import TEMPLATE, Project, cookiecutter, share_compiled

pytestmark = pytest.mark.environment


@pytest.fixture(scope="module")
def worked(compiled, tmp_path_factory) -> Project:
    """A project in which every command of its README has been run, in order, but `jupyter lab`."""
    folder = tmp_path_factory.mktemp("worked")
    answers = {"project_name": "Zebra Count", "dataset_name": "stripes"}
    done = cookiecutter(folder, skip="venv,kernel", **answers)
    assert done.returncode == 0, done.stdout
    project = Project(folder / "zebra-count")
    first, *commands = [one for one in readme_commands(project) if one != "jupyter lab notebooks"]
    warn = {"PYTHONWARNINGS": "default"}
    output = project.run(*first.split(), env=warn).stdout
    share_compiled(compiled, project)
    script = "\n".join(["set -ex", *commands])
    output += project.run("bash", "-c", script, env=warn).stdout
    return Project(project.path, output)


def readme_commands(project) -> list[str]:
    """Every line of every fenced sh block of the project's README, but the remote ones."""
    text = (project.path / "README.md").read_text("utf-8")
    # test_remote_document.py runs those, on machines that are there
    text = re.sub(r"## On a remote machine\n.*?\n## ", "## ", text, flags=re.S)
    blocks = re.findall(r"```sh\n(.*?)```", text, re.S)
    return [line for block in blocks for line in block.splitlines()]


def records(project) -> dict[str, dict]:
    """Every record of the project: the content of run.json by the run's id."""
    paths = sorted(project.path.glob("runs/*/run.json"))
    return {path.parent.name: json.loads(path.read_text("utf-8")) for path in paths}


def test_every_command_of_the_readme_works(worked):
    assert len(readme_commands(worked)) > 12
    states = [record["status"] for record in records(worked).values()]
    assert states == ["COMPLETED"] * 4
    assert worked.git("status", "--porcelain") == ""


def test_every_command_for_agents_is_one_of_the_readme_s(project):
    text = (project.path / "AGENTS.md").read_text("utf-8")
    (block,) = re.findall(r"```sh\n(.*?)```", text, re.S)
    assert len(block.splitlines()) > 5
    assert set(block.splitlines()) <= set(readme_commands(project))
    for command in set(re.findall(r"`lab ([a-z-]+)", text)):
        project.run("lab", command, "--help")
    assert (project.path / "CLAUDE.md").read_text("utf-8") == "@AGENTS.md\n"


def test_a_run_prints_where_its_record_is_and_its_score(worked):
    first = next(iter(records(worked)))
    assert f"record    runs/{first}\n" in worked.output
    assert f"weights   data/stripes/models/{first}/best.safetensors\n" in worked.output
    assert re.search(r"test      accuracy (0\.99\d\d|1\.0000), loss 0\.0\d+\n", worked.output)


def test_the_key_result_of_the_readme_is_the_one_that_comes_out(worked):
    claimed = re.search(r"CPU \| `python -m \S+` \| ([\d.]+) \|", readme(worked)).group(1)
    result = next(iter(records(worked).values()))["result"]
    assert f"{result['accuracy']:.3f}" == claimed


def readme(project) -> str:
    return (project.path / "README.md").read_text("utf-8")


def test_torchrun_with_two_processes_leaves_one_record(worked):
    command = "torchrun --nproc-per-node 2 -m zebra_count.experiment with smoke"
    assert command in readme_commands(worked)
    runs = records(worked)
    assert worked.output.count("test      accuracy") == 4, "one of each command that trains"
    (run,) = [name for name in runs if runs[name]["job"]["processes"] == 2]
    models = worked.path / "data/stripes/models" / run
    assert sorted(path.name for path in models.glob("step-*/random_states_*")) == [
        "random_states_0.pkl",
        "random_states_1.pkl",
    ]


SCORES = """
import json, sys
from pathlib import Path
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from torch.utils.data import default_collate
from zebra_count import data
from zebra_count.model import SmallCNN

split = data.ImageSplit("stripes", "test", size=8, channels=1)
model = SmallCNN(len(split.classes), width=8).eval()
model.load_state_dict(load_file(Path(sys.argv[1], "best.safetensors")))
images, labels = default_collate(list(split))
logits = model(images)
loss = cross_entropy(logits, labels).item()
print(json.dumps([len(split), (logits.argmax(dim=1) == labels).sum().item(), loss]))
"""


def test_two_processes_score_every_sample_once(worked):
    """On a split that does not divide evenly, so the last batches are padded with other samples."""
    runs = records(worked)
    run = next(name for name in runs if runs[name]["job"]["processes"] == 2)
    result = runs[run]["result"]
    models = worked.path / "data/stripes/models" / run
    samples, hits, loss = json.loads(worked.run("python", "-c", SCORES, models).stdout)
    assert samples % (2 * 64) not in (0, 64), "otherwise nothing is padded"
    assert result["accuracy"] * samples == pytest.approx(hits, abs=1e-3)
    assert result["loss"] == pytest.approx(loss, rel=1e-5)


# What the experiment names nothing of. mypy would read all of it, and takes three times as long.
UNREAD = """
IPython prompt_toolkit pydantic sacred sympy traitlets
torch._decomp torch._dynamo torch._export torch._functorch torch._guards torch._higher_order_ops
torch._inductor torch._library torch._native torch._numpy torch._prims torch._refs torch._subclasses
torch.ao torch.distributed torch.distributions torch.export torch.fx torch.jit torch.masked
torch.nested torch.onnx torch.package torch.profiler torch.quantization torch.sparse torch.testing
torch.utils._sympy
"""


def test_the_experiment_passes_a_strict_type_checker(worked, tmp_path):
    """With the settings of its own pyproject.toml, and the packages of its environment."""
    modules = [pattern for name in UNREAD.split() for pattern in (name, f"{name}.*")]
    settings = tmp_path / "pyproject.toml"
    settings.write_text(
        (worked.path / "pyproject.toml").read_text("utf-8")
        + f"\n[[tool.mypy.overrides]]\nmodule = {json.dumps(modules)}\nfollow_imports = 'skip'\n"
    )
    python = worked.path / ".venv/bin/python"
    mypy = [sys.executable, "-m", "mypy", "--config-file", settings, "--cache-dir", os.devnull]
    done = worked.run(*mypy, "--python-executable", python, check=False)
    assert done.returncode == 0, done.stdout
    for source in worked.path.glob("src/*/*.py"):
        text = source.read_text("utf-8")
        named = [name for name in UNREAD.split() if re.search(rf"\b{re.escape(name)}\b", text)]
        assert not named, source


def test_print_config_imports_none_of_the_slow_packages(worked):
    command = ["python", "-X", "importtime", "-m", "zebra_count.experiment", "print_config"]
    output = worked.run(*command).stdout
    imported = {line.split("|")[-1].strip() for line in output.splitlines() if "|" in line}
    assert "sacred" in imported
    assert not {"torch", "sklearn", "tensorboard", "accelerate", "pandas"} & imported
    assert "lr = 0.003" in output


def test_a_frame_of_pandas_is_recorded_as_sacred_records_it(worked):
    code = "from lab.recording.sacred_import import flatten; import pandas"
    code += '; print(flatten({"x": pandas.DataFrame({"a": [1, 2]})})["x"]["values"])'
    assert worked.run("python", "-c", code).stdout == '{"a": [1, 2]}\n'


WRONG = {
    "epoch=3": "error: there is no setting epoch: did you mean epochs?",
    "lr=fast": "error: lr='fast' is not valid: Input should be a valid number.",
    "epochs=1.5": "error: epochs=1.5 is not valid: Input should be a valid integer.",
    "mixed_precision=fp8": "error: mixed_precision='fp8' is not valid",
}
TYPE_WRONG = """
import sys
from zebra_count.experiment import ex
for words in sys.argv[1:]:
    try:
        ex.run_commandline(["experiment", "with", words])
    except SystemExit as error:
        print(error.code)
"""


def test_a_wrong_setting_is_one_line_exit_code_2_and_no_record(worked):
    before = set(records(worked))
    output = worked.run("python", "-u", "-c", TYPE_WRONG, *WRONG).stdout
    lines = [line for line in output.splitlines() if not line.startswith("WARNING")]
    assert lines[1::2] == ["2"] * len(WRONG)
    for line, said in zip(lines[::2], WRONG.values(), strict=True):
        assert line.startswith(said)
    assert set(records(worked)) == before


def test_a_mistake_that_shows_only_in_the_run_is_one_line_too(worked, tmp_path):
    command = ["python", "-m", "zebra_count.experiment", "with", "dataset=nothing"]
    done = worked.run(*command, check=False, env={"LAB_RUNS": str(tmp_path)})
    assert done.returncode == 1
    assert "error: there is no dataset nothing yet in data; python -m zebra" in done.stdout
    assert "Traceback" not in done.stdout


def test_a_stopped_run_is_continued_from_the_command_line(worked, tmp_path):
    train = ["python", "-m", "zebra_count.experiment", "with"]
    configs = {run: worked.path / "runs" / run / "config.json" for run in records(worked)}
    run = next(run for run in configs if json.loads(configs[run].read_text())["epochs"] == 1)
    shutil.copytree(worked.path / "runs" / run, tmp_path / run)
    words = ["smoke", "epochs=2", f"resume={run}"]
    output = worked.run(*train, *words, env={"LAB_RUNS": str(tmp_path)}).stdout
    assert "epoch 2/2" in output
    assert "epoch 1/2" not in output


# Each case spoils what a run has kept; the error of a run that would continue it has these words.
DAMAGE = """
import json, os, shutil, torch
from pathlib import Path
from lab import project
from lab.project import LabError
from zebra_count import data
from zebra_count.accelerator import make_accelerator
from zebra_count.experiment import ex

samples = data.load_digits()[:300]
data.write_dataset("few", "the first 300 digits", samples, seed=0, val=0.2, test=0.2)
models = data.folder("few") / "models"

def train(options=None, **settings):
    settings |= {"dataset": "few", "width": 4}
    return ex.run(config_updates=settings, options=options)._id

def refused(**settings):
    before = sorted(models.iterdir())
    try:
        train(**settings)
    except LabError as error:
        assert sorted(models.iterdir()) == before, "something incomplete is left"
        assert "\\n" not in str(error), error
        return str(error)
    raise AssertionError("it was not refused")

def change(place, file, act):
    kept = (place / file).read_bytes()
    act(place / file)
    said = refused(epochs=2, resume=first)
    (place / file).write_bytes(kept)
    return said

def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

def edit(change):
    def act(path):
        state = json.loads(path.read_text())
        change(state)
        path.write_text(json.dumps(state))
    return act

class Evil:
    def __reduce__(self):
        return open, ("PWNED", "w")

def poison(path):
    torch.save({"evil": Evil()}, path)

first = train(epochs=1)
(place,) = (models / first).glob("step-*")
for file in (place / name for name in os.listdir(place)):
    said = change(place, file.name, poison)
    assert "damaged" in said, said
accelerator = make_accelerator("no")  # of a training that keeps an object of its own
accelerator.register_for_checkpointing(torch.optim.SGD([torch.zeros(1)], 0.1))
accelerator.save_state("own")
poison(Path("own/custom_checkpoint_0.pkl"))
try:
    accelerator.load_state("own")
except Exception as error:
    assert "eights" in str(error), error
else:
    raise AssertionError("it was loaded")
shutil.rmtree("own")
assert not os.path.exists("PWNED"), "something in a checkpoint was run"
for file in place.iterdir():
    for act in (halve, type(file).unlink):
        said = change(place, file.name, act)
        lost = file.name == "state.json" and act is not halve
        assert ("is not a run with a checkpoint" if lost else "damaged") in said, said
for act in (halve, type(place).unlink):
    said = change(place.parent, "best.safetensors", act)
    assert "are damaged, or of another model" in said, said
for place_of in ("progress epoch", "progress step", "config epochs", "config dataset"):
    part, name = place_of.split()
    for value in ("two", None, [1], {}):
        said = change(place, "state.json", edit(lambda state: state[part].update({name: value})))
        assert "damaged" in said or name == "dataset", said
said = change(place, "state.json", edit(lambda state: state.update(processes=2)))
assert "it had 2 processes, now 1" in said
said = change(place, "state.json", edit(lambda state: state["config"].pop("width")))
assert "width was 32, is 4" in said
edit(lambda state: state["config"].pop("lr"))(place / "state.json")  # 0.003 by default, as now
assert f"there are: {first}." in refused(epochs=2, resume="another")
assert "fp16 does nothing on a CPU" in refused(mixed_precision="fp16")
train(epochs=2, resume=first)

shutil.rmtree(project.runs_folder() / first)
assert "cannot be made: File exists" in refused(options={"--id": first})
image = next((data.folder("few") / "train").glob("*/*.png"))
image.write_bytes(b"no image")
models = image.parent  # of such a run there is a folder: it has begun
said = {refused(workers=workers) for workers in (0, 2)}
assert said == {f"{image} is not a BMP, JPEG, PNG, TIFF or WEBP image;"
    " python -m zebra_count.data verify tells more."}, said
print("all was refused")
"""


def test_damaged_checkpoints_and_images_are_one_line_and_run_or_leave_nothing(worked, tmp_path):
    environment = {"LAB_RUNS": str(tmp_path / "runs"), "LAB_DATA": str(tmp_path / "data")}
    done = worked.run("python", "-c", DAMAGE, env=environment)
    assert "all was refused" in done.stdout


# --- data -------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["LAB_DATA", "machines.local.toml"])
def test_the_data_folder_can_be_on_another_disk(clone, project, tmp_path, way):
    place = tmp_path / "big disk"
    python = project.path / ".venv" / "bin" / "python"
    environment = {"PYTHONPATH": str(clone.path / "src")}
    if way == "LAB_DATA":
        environment["LAB_DATA"] = str(place)
    else:
        (clone.path / "machines.local.toml").write_text(f"[here]\ndata = '{place}'\n")
    for command in ("prepare", "verify"):
        clone.run(python, "-m", "my_experiment.data", command, env=environment)
    assert (place / "digits" / "manifest.json").exists()
    assert len(list((place / "digits" / "train").glob("*/*.png"))) > 1000
    assert not list((clone.path / "data").rglob("*.png"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[here\n", " cannot be read: .*line 1.*"),
        ("[here]\nruns = 5\n", ": runs = 5: .here. takes data = .* and runs = .*"),
        ("[here]\ndata = ''\n", ": data = '': .here. takes .*"),
        ("[here]\ndat = 'x'\n", ": dat = 'x': .here. takes .*"),
        ("here = 'x'\n", ": here = 'x': .here. takes .*"),
    ],
)
def test_a_broken_machines_local_toml_is_named_in_one_line(clone, project, text, said):
    (clone.path / "machines.local.toml").write_text(text)
    python = project.path / ".venv" / "bin" / "python"
    environment = {"PYTHONPATH": str(clone.path / "src")}
    both = ("data verify", "experiment print_config")
    for words in both if text.startswith("[here\n") else both[:1]:
        command = [python, "-m", *f"my_experiment.{words}".split()]
        done = clone.run(*command, env=environment, check=False)
        assert done.returncode == 1
        assert re.fullmatch(rf"error: \S+machines.local.toml{said}\n", done.stdout)


def test_data_answers_in_lines_to_a_broken_pyproject_and_to_names_that_are_no_text(
    clone, project, digits
):
    python = project.path / ".venv" / "bin" / "python"
    environment = {"PYTHONPATH": str(clone.path / "src"), "PYTHONIOENCODING": "utf-8:strict"}
    command = [python, "-m", "my_experiment.data"]
    shutil.copytree(digits / "digits", clone.path / "data/digits", dirs_exist_ok=True)
    (clone.path / os.fsdecode(b"data/digits/train/\xff.png")).touch()
    done = clone.run(*command, "verify", env=environment, check=False)
    assert done.returncode == 1
    assert done.stdout.startswith("foreign   train/\\udcff.png\n")
    settings = clone.path / "pyproject.toml"
    settings.write_text(settings.read_text() + "x = [")
    done = clone.run(*command, "verify", env=environment, check=False)
    assert done.returncode == 1
    assert re.fullmatch(r"error: \S+pyproject.toml .*\n", done.stdout)


def test_runs_and_a_dataset_may_be_links_that_git_does_not_see(clone, project, tmp_path):
    (clone.path / "runs").symlink_to(tmp_path / "disk")
    (clone.path / "data/more").symlink_to(tmp_path)
    assert clone.git("status", "--porcelain") == ""
    lab = [project.path / ".venv/bin/python", "-m", "lab.cli", "runs"]
    environment = {"PYTHONPATH": str(clone.path / "src")}
    done = clone.run(*lab, env=environment, check=False)
    assert (done.returncode, done.stdout) == (
        1,
        f"lab: runs links to {tmp_path}/disk, which does not exist: is its disk mounted?\n",
    )
    (tmp_path / "disk").mkdir()
    assert clone.run(*lab, env=environment).stdout == "no runs yet\n"
    # and a run that misses its data so has a record
    (tmp_path / "data").symlink_to(tmp_path / "lost")
    ask = [
        lab[0],
        "-c",
        "from lab.recording import provenance as p; print(p.identify_data('digits'))",
    ]
    known = clone.run(*ask, env={**environment, "LAB_DATA": str(tmp_path / "data")}).stdout
    assert known == "{'dataset': 'digits', 'manifest_sha256': None}\n"


def test_an_interrupted_prepare_is_finished_by_the_next(project, digits, tmp_path):
    place = shutil.copytree(digits / "digits", tmp_path / "digits")
    complete = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    for path in [place / "manifest.json", *sorted(place.glob("train/*/*"))[::3]]:
        path.unlink()
    project.run("python", "-m", "my_experiment.data", "prepare", env={"LAB_DATA": str(tmp_path)})
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == complete


def test_ctrl_c_in_prepare_says_how_to_complete_the_dataset(project, digits, tmp_path):
    environment = {**os.environ, "LAB_DATA": str(tmp_path)}
    command = [project.path / ".venv/bin/python", "-m", "my_experiment.data", "prepare"]
    files = json.loads((digits / "digits/manifest.json").read_text())["files"]
    last = tmp_path / "mine" / list(files)[-1]
    last.parent.mkdir(parents=True)
    os.mkfifo(last)  # reading it waits for us
    command += ["--dataset", "mine"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    with last.open("wb"):
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
    place = tmp_path / "mine"
    assert (
        said == f"\ninterrupted: {place} is incomplete; run the same command again to complete it\n"
    )
    assert process.returncode == 130 and not (place / "manifest.json").exists()
    last.unlink()
    project.run(*command, env=environment)
    assert len(list(place.rglob("*.png"))) == len(files)


def test_verify_names_a_file_that_it_cannot_read(project, digits, tmp_path):
    environment = {"LAB_DATA": str(tmp_path)}
    command = ["python", "-m", "my_experiment.data"]
    shutil.copytree(digits / "digits", tmp_path / "digits")
    (tmp_path / "digits/val/0/bad.png").symlink_to("/proc/self/mem")  # root may read all others
    done = project.run(*command, "verify", env=environment, check=False)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "foreign   val/0/bad.png",
        "unreadable val/0/bad.png: cannot be read: Input/output error",
    ]


def test_a_full_disk_is_named_where_a_checkpoint_does_not_fit_and_no_draft_stays(worked, tmp_path):
    """Four free blocks hold neither, 40 KB the best weights alone."""
    script = """
    mount -t tmpfs -o size=20m none "$1"
    tar -C data -c --exclude=models stripes | tar -C "$1" -x
    for kilobytes in 16 40; do
        free=$(df -k --output=avail "$1" | tail -n 1)
        dd if=/dev/zero of="$1"/ballast bs=1k count=$((free - kilobytes)) status=none
        python -m zebra_count.experiment with smoke; echo "ended: $?"
        rm "$1"/ballast
    done
    find "$1"/stripes/models -type f
    """
    inside = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", tmp_path]
    runs = tmp_path.with_name("runs")
    output = worked.run(*inside, env={"LAB_DATA": str(tmp_path), "LAB_RUNS": str(runs)}).stdout
    said = re.findall(r"error: \S+/(\S+\.new) cannot be written \(.*\nended: 1\n", output)
    assert said == ["best.safetensors.new", "step-00000017.new"]
    assert "Traceback" not in output
    assert re.findall(r"models/\S+/(\S+)\n", output) == ["best.safetensors"]
    states = [json.loads(path.read_text())["status"] for path in runs.glob("*/run.json")]
    assert states == ["FAILED", "FAILED"]


def test_a_full_disk_is_named_and_prepare_can_be_repeated(project, tmp_path):
    script = """
    mount -t tmpfs -o size=1m none "$1"
    python -m my_experiment.data prepare; echo "first: $?"
    mount -o remount,size=100m "$1"
    python -m my_experiment.data prepare; echo "second: $?"
    python -m my_experiment.data verify; echo "verify: $?"
    """
    inside = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", tmp_path]
    output = project.run(*inside, env={"LAB_DATA": str(tmp_path)}).stdout
    assert re.search(
        r"error: .*No space left on device. Fix that and run the same command again\.\nfirst: 1\n",
        output,
    )
    assert "second: 0" in output
    assert "verify: 0" in output


# --- for the people who work in it -----------------------------------------------------------


LONG_TEXT = """
import sys
from pathlib import Path
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from my_experiment import data
for label in "ab":
    for number in range(4):
        path = Path(sys.argv[1], label, f"{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 50 * number + ord(label)).save(path)
info = PngInfo()
info.add_text("note", "x" * 2**27, zip=True)
Image.new("L", (8, 8)).save(Path(sys.argv[1], "a/text.png"), pnginfo=info)
sys.exit(data.main(["split", sys.argv[1], "--dataset", "texts"]))
"""


def test_an_image_with_a_text_that_would_fill_the_memory_is_named(project, tmp_path):
    env = {"LAB_DATA": str(tmp_path / "data"), "LAB_PROJECT": str(project.path)}
    done = project.run("python", "-c", LONG_TEXT, tmp_path / "source", env=env, check=False)
    assert done.returncode == 1 and "a/text.png" in done.stdout and "Traceback" not in done.stdout


COUNT_READS = """
import multiprocessing, os, sys
from my_experiment import data, loading
from my_experiment.experiment import Config

def count(event, arguments):  # in each worker, too, as it imports this file or inherits it
    # once for each file: open() tells of itself, and then of os.open(), which has no mode
    if event == "open" and "/digits/train/" in str(arguments[0]) and arguments[1] is None:
        with open(os.environ["READS"], "a") as reads:
            reads.write(f"{os.getpid()} {arguments[0]}\\n")

if __name__ == "__main__":
    samples = data.load_digits()[:200]
    data.write_dataset("digits", "the first digits", samples, seed=0, val=0.2, test=0.2)
sys.addaudithook(count)
for method in sys.argv[1:] if __name__ == "__main__" else ():
    os.environ["READS"] = method
    multiprocessing.set_start_method(method, force=True)
    train = data.ImageSplit("digits", "train", 8, 1)
    first = train[0]  # what is in memory before goes along
    loaders, order = loading.make_loaders({"train": train}, Config(workers=2))
    for order.epoch in range(2):
        assert sum(len(labels) for _, labels in loaders["train"]) == len(train)
    loaders.clear()  # its workers end
    print(len(train))
"""


def test_images_that_workers_load_are_read_once_in_each_of_them(project, tmp_path):
    """Not once per epoch with new workers, however they are started."""
    (tmp_path / "count.py").write_text(COUNT_READS)
    env = {"LAB_DATA": str(tmp_path / "data"), "LAB_PROJECT": str(project.path)}
    methods = ("fork", "spawn")
    done = project.run("python", tmp_path / "count.py", *methods, env=env, cwd=tmp_path)
    for method, images in zip(methods, done.stdout.split(), strict=True):
        reads = [line.split(" ", 1) for line in (tmp_path / method).read_text().splitlines()]
        assert len({process for process, _ in reads}) == 3, "two workers, and what started them"
        assert len(reads) == len({(process, path) for process, path in reads})
        assert int(images) <= len(reads) <= 2 * int(images) - 1, "nobody read the first one again"


@pytest.mark.parametrize("name", ["Aaa", "Zebra", 'It\'s "quoted" \\ 日本 🚀'])
def test_a_fresh_project_is_ruff_clean_whatever_it_is_called(bake, name):
    slug = {"project_slug": "x-1"} if "quoted" in name else {}
    fresh = bake(project_name=name, **slug)
    fresh.run("ruff", "check", ".")
    fresh.run("ruff", "format", "--check", ".")


def test_the_github_workflow_does_what_works_here(compiled, clone, home):
    workflow = (clone.path / ".github/workflows/tests.yml").read_text()
    commands = re.findall(r"- run: (.*)", workflow)
    assert commands[-1] == ".venv/bin/pytest"
    clone.run(*commands.pop(0).split())
    share_compiled(compiled, clone)
    for command in commands:
        # one test, which needs no torch: another one runs them all, with `pytest`
        few = {"PYTEST_ADDOPTS": "-q -k draws --ignore=tests/test_experiment.py"}
        clone.run(*command.split(), env=few)


def test_vs_code_is_pointed_to_the_environment(project):
    settings = json.loads((project.path / ".vscode" / "settings.json").read_text())
    path = settings["python.defaultInterpreterPath"]
    assert os.access(path.replace("${workspaceFolder}", str(project.path)), os.X_OK)
    smoke = settings["launch"]["configurations"][0]  # as the editor's run button does it
    program = smoke["program"].replace("${workspaceFolder}", str(project.path))
    shown = project.run(
        path.replace("${workspaceFolder}", str(project.path)),
        program,
        "print_config",
        *smoke["args"],
    )
    assert "epochs = 1" in shown.stdout


# --- notebooks --------------------------------------------------------------------------------

HEADER = ["%matplotlib inline\n", "%load_ext autoreload\n", "%autoreload 2"]


def test_every_notebook_begins_with_the_three_magic_lines_and_has_the_named_kernel(worked):
    paths = sorted(worked.path.glob("notebooks/*.ipynb"))
    assert [path.name for path in paths] == ["compare_runs.ipynb", "explore_data.ipynb"]
    for path in paths:
        notebook = json.loads(path.read_text("utf-8"))
        code = [cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
        assert code[0] == HEADER
        assert sum(map(len, code)) < 20, "the logic belongs in src"
        assert notebook["metadata"]["kernelspec"]["name"] == "zebra-count"


def test_notebooks_run_on_the_named_kernel_show_images_and_are_committed_without_them(
    worked, tmp_path
):
    copy = Project(tmp_path / "copy")
    shutil.copytree(worked.path, copy.path, symlinks=True, ignore=shutil.ignore_patterns(".venv"))
    images = {copy.path / "notebooks/explore_data.ipynb": 3}
    images[copy.path / "notebooks/compare_runs.ipynb"] = 2
    run = [worked.path / ".venv/bin/jupyter", "nbconvert", "--to", "notebook", "--execute"]
    copy.run(*run, "--inplace", *images)
    for path, number in images.items():
        notebook = json.loads(path.read_text("utf-8"))
        outputs = [out for cell in notebook["cells"] for out in cell.get("outputs", [])]
        assert not [out for out in outputs if out["output_type"] in ("error", "stream")]
        kinds = [kind for out in outputs for kind in out.get("data", {})]
        assert kinds.count("image/png") == number
        assert "text/html" in kinds  # a table
    copy.git("add", "--all")
    assert copy.git("diff", "--cached") == ""


def test_a_notebook_in_any_folder_imports_the_package_and_the_next_cell_sees_an_edit(
    worked, tmp_path
):
    module = worked.path / "src/zebra_count/stripes.py"
    content = "def count():\n    return 22"
    edit = f"from pathlib import Path\nPath({str(module)!r}).write_text({content!r})"
    cells = ["".join(HEADER), edit.replace("22", "1"), "from zebra_count.stripes import count"]
    cells += ["print('first', count())", edit, "print('then', count())"]
    code = f"""
import nbformat
from nbclient import NotebookClient
cells = [nbformat.v4.new_code_cell(cell) for cell in {cells!r}]
notebook = nbformat.v4.new_notebook(cells=cells)
NotebookClient(notebook, kernel_name="zebra-count", timeout=120).execute()
print(*(output.get("text", "") for cell in cells for output in cell.outputs))
"""
    try:
        shown = worked.run("python", "-c", code, cwd=tmp_path).stdout
    finally:
        module.unlink(missing_ok=True)
    assert "first 1\n" in shown and "then 22\n" in shown


def test_jupyter_lab_starts_and_offers_the_named_kernel(worked, tmp_path):
    environment = {**os.environ, "JUPYTER_TOKEN": "secret", "JUPYTER_RUNTIME_DIR": str(tmp_path)}
    environment["PATH"] = f"{worked.path}/.venv/bin:{environment['PATH']}"
    command = ["jupyter", "lab", "notebooks"]
    assert " ".join(command) in readme_commands(worked)
    server = subprocess.Popen(
        [*command, "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1"],
        cwd=worked.path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        url = next(filter(None, map(served_at, lines(server.stderr, seconds=120))))
        request = urllib.request.Request(
            f"{url}api/kernelspecs", headers={"Authorization": "token secret"}
        )
        specs = json.load(patient_open(request, server))["kernelspecs"]
        assert list(specs) == ["zebra-count"], "this one alone"
        assert specs["zebra-count"]["spec"]["display_name"] == "Zebra Count"
        assert specs["zebra-count"]["spec"]["argv"][0] == f"{worked.path}/.venv/bin/python"
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=120)


def patient_open(request, server: subprocess.Popen):
    """Jupyter names its address a moment before it listens there: ask until it does, or ended."""
    while server.poll() is None:
        try:
            return urllib.request.urlopen(request, timeout=120)
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ConnectionRefusedError):
                raise
    raise AssertionError("the server ended")


def served_at(line: str) -> str | None:
    """The address that a line of Jupyter's log names, without /lab and the token."""
    found = re.search(r"(http://127\.0\.0\.1:\d+/)lab", line)
    return found.group(1) if found else None


def lines(stream, seconds: float):
    """Yield the lines of a process's output as they come; fail if none comes for so long."""
    while True:
        assert select.select([stream], [], [], seconds)[0], "the server says nothing"
        line = stream.readline()
        assert line, "the server ended"
        yield line


def test_a_training_run_has_the_scores_of_the_same_loop_in_bare_pytorch(project, digits, tmp_path):
    folders = {"LAB_DATA": str(tmp_path / "data"), "LAB_RUNS": str(tmp_path / "runs")}
    shutil.copytree(digits, tmp_path / "data")
    benchmark = TEMPLATE / "benchmarks/training.py"
    # it ends with 1 if the scores differ
    done = project.run(".venv/bin/python", benchmark, "trial", env=folders, stderr=subprocess.PIPE)
    assert json.loads(done.stdout)["trial"]["samples"] > 0
