"""Unedited scripts are recorded, with the numbers that they give to their own loggers."""

import json
from pathlib import Path

import pytest

from helpers.jobs import job, logged
from helpers.projects import Project

WRITERS = """
import argparse
import torch
from torch.utils.tensorboard import SummaryWriter
from accelerate import Accelerator

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.1)
lr = parser.parse_args().lr
torch.manual_seed(0)
weight = torch.zeros(3, requires_grad=True)
target = torch.rand(3)
writer = SummaryWriter("out/tensorboard")
accelerator = Accelerator(cpu=True, log_with="tensorboard", project_dir="out")
accelerator.init_trackers("tracked", config={"lr": lr})
for step in range(4):
    loss = ((weight - target) ** 2).mean()
    (gradient,) = torch.autograd.grad(loss, weight)
    weight = (weight - lr * gradient).detach().requires_grad_()
    writer.add_scalar("loss", loss, step)
    accelerator.log({"tracked": float(loss), "seconds": 1.5}, step=step)
accelerator.end_training()
"""
LIGHTNING = """
import lightning, torch

class Model(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
    def training_step(self, batch, index):
        loss = self.layer(batch).mean() ** 2
        self.log("train_loss", loss)
        return loss
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

loader = torch.utils.data.DataLoader(torch.ones(8, 2), batch_size=2)
options = dict(accelerator="cpu", max_epochs=1, log_every_n_steps=1, enable_progress_bar=False)
lightning.Trainer(default_root_dir="out", logger=True, **options).fit(Model(), loader)
"""
TRAINER = """
import torch
from transformers import PretrainedConfig, PreTrainedModel, Trainer, TrainingArguments

class Model(PreTrainedModel):
    config_class = PretrainedConfig
    def __init__(self, config):
        super().__init__(config)
        self.layer = torch.nn.Linear(2, 1)
        self.post_init()
    def forward(self, x=None, labels=None):
        return {"loss": ((self.layer(x) - labels) ** 2).mean()}

data = [{"x": torch.ones(2), "labels": torch.ones(1)} for _ in range(8)]
arguments = TrainingArguments("out", max_steps=3, logging_steps=1, report_to=[], use_cpu=True,
                              save_strategy="no", disable_tqdm=True)
Trainer(Model(PretrainedConfig()), arguments, train_dataset=data).train()
"""
HYDRA = """
import hydra, tensorboardX, wandb

@hydra.main(version_base=None, config_path=None, config_name=None)
def main(config):
    writer = tensorboardX.SummaryWriter("out/x")
    writer.add_scalars("both", {"a": 1, "b": 2}, 5)
    run = wandb.init(mode="offline", dir="out")
    run.log({"loss": 0.5})
    wandb.log({"loss": 0.25})
    run.finish()

main()
"""
# Exactly these, without what the project's environment has: another day's could need others.
LIBRARIES = """antlr4-python3-runtime==4.9.3 googleapis-common-protos==1.76.0 hydra-core==1.3.8
    lightning-utilities==0.15.3 lightning==2.6.6 omegaconf==2.3.1 opentelemetry-api==1.45.2
    opentelemetry-exporter-http-transport==0.66b2 opentelemetry-exporter-otlp-common==0.66b2
    opentelemetry-exporter-otlp-proto-common==1.45.2 opentelemetry-exporter-otlp-proto-http==1.45.2
    opentelemetry-proto==1.45.2 opentelemetry-sdk==1.45.2
    opentelemetry-semantic-conventions==0.66b2 pytorch-lightning==2.6.6 regex==2026.11.19
    tensorboardx==2.6.5 tokenizers==0.23.3 torchmetrics==1.9.0 transformers==5.24.0 wandb==0.31.0
    xxhash==4.1.0"""


@pytest.fixture
def flat(clone, project, monkeypatch) -> Project:
    """A clone whose own scripts lie in its top folder, with the project's environment."""
    monkeypatch.setenv("PATH", f"{project.path}/.venv/bin", prepend=":")
    (clone.path / "pyproject.toml").write_text(
        (clone.path / "pyproject.toml")
        .read_text()
        .replace("[tool.lab]\n", '[tool.lab]\noutputs = ["out/"]\n')
    )
    return clone


def points(folder: Path) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        one = json.loads(line)
        found.setdefault(one["metric"], []).append((one["step"], float(one["value"])))
    return found


def test_what_a_script_writes_for_tensorboard_is_recorded_and_repeated_by_its_id(flat):
    (flat.path / "train.py").write_text(WRITERS)
    flat.run("lab", "record", "--", "python", "train.py", "--lr", "0.5")
    (folder,) = flat.path.glob("runs/2*")
    found = points(folder)
    assert [step for step, _ in found["loss"]] == [0, 1, 2, 3]
    assert [value for _, value in found["loss"]] == pytest.approx(
        [value for _, value in found["tracked"]]
    )
    assert len(list(flat.path.glob(f"data/*/models/{folder.name}/out/tensorboard/events*"))) == 1
    (flat.path / "train.py").write_text("this is edited later")
    printed = flat.run("lab", "reproduce", "--yes", folder.name).stdout
    assert "the same numbers" in printed.splitlines()[-1]
    again = next(path for path in flat.path.glob("runs/2*") if path != folder)
    assert json.loads((again / "run.json").read_text())["meta"]["words"][-1] == "0.5"


REMOTE = """
import os, sys
from pathlib import Path
import helper
import wandb

out = Path("out")
out.mkdir(exist_ok=True)
state = out / "state"
epoch = int(state.read_text()) if state.exists() else 0
Path(os.environ["LAB_OUTPUT"], "weights").write_text("w")
for epoch in range(epoch, epoch + 2):
    wandb.log({"loss": 1 / (epoch + 1)}, step=epoch)
state.write_text(str(epoch + 1))
print("sees", Path("data/digits/train/x.txt").read_text(), sys.argv[1:], helper.WORD)
"""


def test_a_flat_script_runs_on_a_machine_comes_home_and_goes_on(laptop):
    (laptop.path / "train.py").write_text(REMOTE)
    (laptop.path / "helper.py").write_text("WORD = 'fine'\n")
    settings = laptop.path / "pyproject.toml"
    settings.write_text(settings.read_text().replace("[tool.lab]", '[tool.lab]\noutputs = ["out"]'))
    there = laptop.there("data/digits/train")
    there.mkdir(parents=True)
    (there / "x.txt").write_text("an image")
    record = ("run", "--follow", "--name", "try")
    printed = laptop.lab(*record, "--", "python", "train.py", "--lr", "0.5")
    assert "sees an image ['--lr', '0.5'] fine" in printed
    laptop.lab("fetch")
    (run,) = laptop.path.glob("runs/2*")
    entry = json.loads((run / "run.json").read_text())
    assert entry["status"] == "COMPLETED" and entry["meta"]["changed"] == {"lr": 0.5}
    assert entry["meta"]["options"]["--name"] == "try"
    assert "WORD = 'fine'" in laptop.git("show", f"{entry['code']['commit']}:helper.py")
    assert points(run) == {"loss": [(0, 1.0), (1, 0.5)]}
    models = laptop.path / "data/digits/models" / run.name
    assert {path.name for path in models.rglob("*") if path.is_file()} == {"state", "weights"}
    laptop.lab(*record, "--from", run.name, "--", "python", "train.py")
    again = ("lab", "record", "--from", run.name, "--", "python", "train.py")
    laptop.lab("run", "--follow", "--", *again)  # has one record, not two
    laptop.lab("fetch")
    later = [path for path in laptop.path.glob("runs/2*") if path != run]
    steps = [[step for step, _ in points(path)["loss"]] for path in later]
    assert steps == [[2, 3], [2, 3]], "they went on where that ended"
    (laptop.path / "data/digits/train").mkdir(parents=True, exist_ok=True)
    (laptop.path / "data/digits/train/x.txt").write_text("an image")
    printed = laptop.lab("reproduce", "--yes", run.name)
    assert "the same numbers" in printed.splitlines()[-1]
    assert "sees an image" in printed, "also here, and in a checkout"


def test_a_recorded_command_is_stopped_like_any_other_and_its_record_says_so(laptop):
    id = laptop.lab("run", "--", "sh", "-c", "echo up; exec sleep 1240").split()[0]
    logged(laptop, id, "up")
    laptop.lab("stop", id)
    assert job(laptop, id)["state"] == "stopped"
    laptop.lab("fetch", id)
    (folder,) = laptop.path.glob("runs/2*")
    assert json.loads((folder / "run.json").read_text())["status"] == "TERMINATED"
    assert laptop.lab("run", "--follow", "--", "sh", "-c", "exit 3", check=False).returncode == 3
