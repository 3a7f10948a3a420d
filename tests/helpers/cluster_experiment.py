"""The experiment of the cut points: a number that follows from the one before, for many steps.

It goes on from its checkpoint as training.py does, without torch.
"""

import json
import time
from dataclasses import dataclass

from lab import project, tracking


@dataclass(frozen=True)
class Config:
    seed: int = 1
    steps: int = 500
    pause: float = 0.1  # seconds for a step
    every: int = 20  # steps from one checkpoint to the next
    until: str = ""  # a file in the data folder: the last step waits for it


ex = tracking.Experiment(Config, quick={"steps": 1})


@ex.main
def run(_config, _run):
    config = Config(**_config)
    folder = project.data_folder() / "digits" / "models" / _run._id
    folder.mkdir(parents=True, exist_ok=True)
    tracking.remove_drafts(folder)
    file = folder / "state.json"
    state = {"step": 0, "number": config.seed, "points": 0}
    if file.exists():
        state = json.loads(file.read_text())
        tracking.keep_points(state["points"])
    wait_for = project.data_folder() / config.until
    with tracking.metrics(_run) as log:
        while state["step"] < config.steps:
            if state["step"] == config.steps - 1 and not wait_for.exists():
                print("step, waiting")
            else:
                state["step"] += 1
                state["number"] = (state["number"] * 1103515245 + 12345) % 2**31
                print(f"step {state['step']}")
                log(state["step"], {"train/loss": state["number"] / 2**31})
            time.sleep(config.pause)
            stops = tracking.should_stop()
            if stops or state["step"] % config.every == 0:
                state["points"] = tracking.save_points()
                with tracking.saving(file) as draft:
                    draft.write_text(json.dumps(state))
            if stops:
                raise tracking.Interrupted
    return {"number": state["number"]}


if __name__ == "__main__":
    ex.run_commandline()
