"""lab.remote in a notebook: jobs are started and shown, curves follow running jobs."""

import json
import re
import shutil
import subprocess

import pytest

from helpers.jobs import ended, job, start, until

START = "from lab import remote\n"


def python(laptop, script: str, **options) -> str:
    """What a script prints that runs in the project on the laptop."""
    done = laptop.run("python", "-c", START + script, **options)
    return done if options.get("check") is False else done.stdout


def notebook(laptop, script: str) -> str:
    """What IPython shows of a cell."""
    shell = "from IPython.core.interactiveshell import InteractiveShell as S; import sys; "
    shell += "S.instance().run_cell(sys.argv[1])"
    return laptop.run("python", "-c", shell, START + script, stderr=subprocess.STDOUT).stdout


def test_a_job_is_started_watched_and_fetched(laptop):
    script = """
job = remote.run("with", "steps=2", "wait_for=/tmp/go", name="<b>first</b>")
print(job)
print(job.state, job.ended, job.id)
print(job._repr_html_())
"""
    shown, state, table = python(laptop, script).splitlines()
    id = state.split()[2]
    assert shown.startswith(f"{id}  running  ") and shown.endswith("  <b>first</b>")
    assert state == f"running False {id}"
    assert f"<td>{id}</td><td>running</td>" in table
    assert "<td>&lt;b&gt;first&lt;/b&gt;</td>" in table and "<b>" not in table
    spec = job(laptop, id)["spec"]
    assert spec["command"][-4:] == [
        "my_experiment.experiment",
        "with",
        "steps=2",
        "wait_for=/tmp/go",
    ]
    laptop.hosts.worker.path("/tmp/go").touch()
    assert ended(laptop, id) == "finished(0)"
    script = """
(job,) = remote.jobs()
print(job.refresh().state)
print(repr(job.logs(last=1)))
remote.fetch(job.id)
print(remote.jobs())
"""
    said = python(laptop, script)
    assert said.startswith("finished(0)\n") and "COMPLETED" in said
    assert len(list(laptop.path.glob("runs/*/run.json"))) == 1
    assert re.search(rf"^job  .*\n{id}  finished\(0\)  ", said, re.M)


def test_any_command_is_started_with_gpus_and_stopped(laptop):
    script = """
job = remote.run("--", "sh", "-c", "echo up; exec sleep 100", gpus=0)
print(job.stop(grace=5).state, job.ended)
print(repr(remote.run("--", "true")._repr_html_())[:7])
"""
    assert python(laptop, script) == "stopped True\n'<table\n"


def test_one_job_is_asked_for_alone_however_many_there_are(laptop):
    id = start(laptop, "--", "true")
    ended(laptop, id)
    for number in range(1000):
        older = laptop.there(f"jobs/20200101-000000-{number:04}")
        older.mkdir()
        for name in ("job.json", "exit_code"):
            shutil.copy(laptop.there(f"jobs/{id}/{name}"), older)
    laptop.hosts.traffic()
    laptop.lab("logs", "-f", id)
    laptop.lab("logs", "-f")
    assert python(laptop, "print(remote.jobs()[0].refresh().state)") == "finished(0)\n"
    assert laptop.hosts.traffic().down < 60_000, "a list of all of them has 250 kB"
    script = "job = remote.jobs()[0]; job.seen = job.seen._replace(id='gone'); job.refresh()"
    assert notebook(laptop, script) == "error: there is no job gone on worker.\n"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("remote.run(gpus='many')", "--gpus many: expected a number, as in --gpus 2."),
        ("remote.jobs(machine='x')", "there is no machine x; machines.toml has gpu."),
    ],
)
def test_a_mistake_is_one_line_in_a_notebook(laptop, script, said):
    assert notebook(laptop, script) == f"error: {said}\n"


def test_a_changed_machines_toml_is_seen_without_a_new_kernel(laptop):
    script = """
try:
    remote.jobs(machine="new")
except Exception as error:
    print(error)
with open("machines.toml", "a") as file:
    file.write('\\n[machines.new]\\nssh = "worker"\\ngateway = "gateway"\\nfolder = "new"\\n')
print(remote.jobs(machine="new"))
"""
    assert python(laptop, script).splitlines()[1] == "no jobs yet"


# --- following -----------------------------------------------------------------------------------

# the small environment has neither pandas nor matplotlib: what would be drawn is printed
FOLLOW = """
import sys, types
from lab.runs import records
for name in ("matplotlib", "matplotlib.pyplot"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["matplotlib"].pyplot = sys.modules["matplotlib.pyplot"]
sys.modules["matplotlib.pyplot"].close = lambda figure: None
import IPython.display
IPython.display.clear_output = lambda wait: None
IPython.display.display = lambda figure: print(figure, flush=True)
folder = records.project.runs_folder()
points = lambda run: records.points(folder / run / "metrics.jsonl")
records.metrics = lambda *runs: [point for run in runs for point in points(run)]
records.curves = lambda table, name: f"{name}: {sorted(p[1] for p in table if p[0] == name)}"
"""


def test_the_curves_of_a_running_job_grow_until_the_cell_is_interrupted(laptop):
    laptop.lab("run", "with", "steps=3", "wait_for=/tmp/go")
    script = FOLLOW + "remote.follow('train/loss', every=0.1)"
    with laptop.popen("python", "-c", START + script) as following:
        until(lambda: following.stdout.readline() == "train/loss: [1]\n", what="the first point")
        laptop.hosts.worker.path("/tmp/go").touch()
        until(lambda: following.stdout.readline() == "train/loss: [1, 2, 3]\n", what="the others")
        following.interrupt()
        rest, said = following.communicate(timeout=120)
    assert rest.endswith("no longer following; the runs continue\n") and following.returncode == 0
    assert not list(laptop.path.glob("data/*/models/*/epoch*")), "only records are brought"


def test_without_a_machine_or_a_connection_the_local_records_are_drawn(laptop):
    laptop.run("python", "-m", "my_experiment.experiment", "with", "steps=2")
    drawn = "train/loss: [1, 2]\n"
    once = FOLLOW + "remote.follow('train/loss')"
    laptop.hosts.cut()
    said = python(laptop, once, env={"LAB_PATIENCE": "1"})
    assert said.startswith(drawn + "not up to date: gpu: ") and said.count("\n") == 2
    for name in ("machines.toml", "machines.local.toml"):
        (laptop.path / name).write_text("")
    assert python(laptop, once) == drawn


# --- the kernel there ----------------------------------------------------------------------------


def test_the_remote_kernels_are_listed_and_only_this_projects_is_removed(laptop):
    kernels = laptop.hosts.worker.home / ".local/share/jupyter/kernels"
    other = kernels / "other/kernel.json"
    other.parent.mkdir()
    other.write_text(json.dumps({"argv": ["/gone/bin/python"], "display_name": "Other"}))
    listed = json.loads(laptop.lab("kernel", "list", "-m", "gpu", "--json"))
    assert {one["name"]: one["state"] for one in listed} == {
        "my-experiment": "this project",
        "other": "gone",
    }
    assert "my-experiment" in laptop.lab("kernel", "list", "-m", "gpu")
    assert laptop.lab("-m", "gpu", "kernel", "remove") == "gpu: removed: my-experiment\n"
    assert [path.name for path in kernels.iterdir()] == ["other"]
    again = laptop.lab("kernel", "remove", "-m", "gpu")
    assert again == "gpu: this project has no kernel\n"
    laptop.lab("setup")
    assert (kernels / "my-experiment/kernel.json").exists()
    assert laptop.lab("kernel", "list") == "no kernels\n"


def test_a_machine_that_is_not_set_up_is_named_in_one_line(laptop):
    laptop.there("work").rename(laptop.there("away"))
    done = laptop.lab("kernel", "list", "-m", "gpu", check=False)
    assert done.returncode == 1
    assert done.stderr == "lab: the project is not on worker yet: lab setup.\n"
