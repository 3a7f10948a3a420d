"""The settings of an experiment that tests ask: as text, and for real in test_tracking.py."""

SETTINGS = """
@dataclass(frozen=True)
class Config:
    lr: float = 0.1
    seed: Annotated[int, Ge(0)] = 0
    decay: Annotated[float, Ge(0)] = 0.1
    mode: Literal["fast", "slow"] = "fast"
    sizes: tuple[int, ...] = (1, 2)
    resume: str = ""

ex = tracking.Experiment(Config, inherit=".nowhere:inherit", quick={"lr": 1.0})
"""
