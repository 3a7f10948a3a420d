"""Connections that are lost again and again, at random moments: every run comes home whole."""

import json
import random
import re
import shutil

import pytest

from helpers.jobs import ended

LIVES = 8  # with a cut in each of four phases: 32 in all
BARE = 3  # of them begin without an environment
QUICK = {"LAB_PATIENCE": "4"}
PHASES = ("setup", "run", "logs", "fetch")


def life(laptop, cuts: dict[str, int], bare=True) -> tuple[dict, dict[str, int]]:
    """From a bare account to a fetched record, by a person who runs again what failed.

    A cut comes after that many bytes of a phase. Unless the account is `bare`, it has the
    environment, which takes longer to install than all the rest. Returns what was recorded, and
    the bytes that each phase took.
    """
    hosts = laptop.hosts
    kept = None if bare else laptop.there("envs").rename(laptop.there("").with_name("envs"))
    shutil.rmtree(laptop.there(""), ignore_errors=True)
    if kept:
        laptop.there("").mkdir()
        kept.rename(laptop.there("envs"))
    for name in ("runs", "data"):
        shutil.rmtree(laptop.path / name, ignore_errors=True)
    hosts.laptop.run("git", "-C", laptop.inside, "update-ref", "-d", "refs/lab/sent/gpu")
    took, reconnected = {}, []

    def phase(name: str, *command: str, once: bool = False) -> str:
        hosts.traffic()
        if name in cuts:
            hosts.cut_after(cuts[name])
        for _ in range(1 if once else 3):
            done = laptop.lab(*command, check=False, env=QUICK)
            assert "Traceback" not in done.stderr, done.stderr
            if done.returncode == 0:
                break
        hosts.heal()
        traffic = hosts.traffic()
        took[name] = traffic.up + traffic.down
        reconnected.append(traffic.connections)
        assert once or done.returncode == 0, f"{name} {cuts}: {done.stdout}{done.stderr}"
        return done.stdout

    phase("setup", "setup")
    settings = ["run", "with", "lr=0.25", "steps=40"]
    phase("run", *settings, once=True)
    jobs = json.loads(laptop.lab("jobs", "--json"))
    if not jobs:  # the connection was lost before anything was sent, and lab said so
        laptop.lab(*settings)
        jobs = json.loads(laptop.lab("jobs", "--json"))
    (job,) = jobs
    log = phase("logs", "logs", "-f", job["id"])
    assert log == laptop.there(f"jobs/{job['id']}/output.log").read_text()
    assert ended(laptop, job["id"]) == "finished(0)"
    phase("fetch", "fetch")
    assert sum(reconnected) > 0.7 * len(cuts), "the cuts have to be felt"
    return recorded(laptop, job["id"], log), took


def recorded(laptop, job: str, log: str) -> dict:
    """Everything of the one run that was fetched, without times, ids and the like."""
    (run,) = [path for path in (laptop.path / "runs").glob("2*") if path.is_dir()]
    changing = rf"{run.name}|{job}|\d+:\d\d:\d\d|\d{{4}}-\d\d-\d\d[T ][\d:.+]*"
    record = json.loads((run / "run.json").read_text())
    assert record["job"]["lab"] == job
    there = laptop.there("runs") / run.name
    for path in sorted(path for path in there.rglob("*") if path.is_file()):
        assert (run / path.relative_to(there)).read_bytes() == path.read_bytes(), path
    models = laptop.path / "data/digits/models" / run.name
    return {
        "log": re.sub(changing, "", log),
        "files": sorted(re.sub(r"\d+\.worker.*", "", path.name) for path in run.rglob("*")),
        "status": record["status"],
        "result": record["result"],
        "commit": record["code"]["commit"],
        "config": json.loads((run / "config.json").read_text()),
        "models": {str(p.relative_to(models)): p.read_text() for p in models.glob("*/*")},
    }


@pytest.mark.parametrize("seed", range(LIVES))
def test_a_run_comes_home_identical_however_often_the_connection_is_lost(laptop, undisturbed, seed):
    whole, took = undisturbed
    chance = random.Random(seed)
    cuts = {name: chance.randrange(int(took[name] * 0.95)) for name in PHASES}
    found, _ = life(laptop, cuts, bare=seed < BARE)
    assert found["status"] == "COMPLETED"
    assert found == whole


@pytest.fixture(scope="module")
def undisturbed(ready):
    ready.hosts.clean("ready")
    return life(ready, {})
