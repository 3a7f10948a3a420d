"""The experiment of the remote tests: recorded by Sacred, without torch, told what to do."""

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from lab import project, tracking


@dataclass(frozen=True)
class Config:
    seed: int = 0
    lr: float = 0.1
    steps: int = 3
    text: str = ""
    wait_for: str = ""  # a file: the run goes on when it is there
    pretrained: tracking.Model = ""  # whose weights it reads
    code: int = 0  # it ends with this exit code


ex = tracking.Experiment(Config, quick={"steps": 1})


@ex.main
def run(_config, _run):
    config = Config(**_config)
    print(f"started with {config.text!r} on {os.uname().nodename}")
    models = project.data_folder() / "digits" / "models" / _run._id
    models.mkdir(parents=True)
    if config.pretrained:
        weights = models.with_name(config.pretrained) / "best.safetensors"
        print(f"weights of {len(weights.read_bytes())} bytes")
    with tracking.metrics(_run) as log:
        for step in range(1, config.steps + 1):
            log(step, {"train/loss": config.lr / step})
            print(f"step {step} of {config.steps}")
            draft = models / f"epoch-{step:04}.new"
            draft.mkdir()
            (draft / "state.json").write_text(json.dumps({"step": step}))
            draft.rename(models / f"epoch-{step:04}")
            if config.wait_for and step == 1:
                while not Path(config.wait_for).exists():
                    time.sleep(0.05)
    if config.code:
        sys.exit(config.code)
    return {"loss": config.lr / config.steps}


if __name__ == "__main__":
    ex.run_commandline()
