"""Jupyter and TensorBoard in a real browser on the laptop, through the gateway.

`make images` sets SAVE_IMAGES to the folder of the documents: then the runs are real trainings, and
the tests leave the documents' images there.
"""

import json
import os
import shlex
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from helpers.jobs import until
from helpers.laptop import Laptop
from helpers.notebook import QUICK, get, notebook, tunnels
from helpers.projects import TEMPLATE

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium; on Debian make installs it")
IMAGES = os.environ.get("SAVE_IMAGES")
SECONDS = 90  # for anything to appear: JupyterLab waits up to a minute before it tries again
# a sandbox needs its own namespaces, and the laptop's /dev/shm is small
OPTIONS = ["--no-sandbox", "--disable-dev-shm-usage"]
OPTIONS += ["--disable-3d-apis"]  # TensorBoard then draws lines that a test can count
IDLE = "My Experiment | Idle"  # the indicator beside the cells is idle also without a kernel
CELLS = [
    "import socket\n\nprint('this runs on', socket.gethostname())",
    "from lab import records\n\n"
    "metrics = records.metrics(*records.runs().index)\n"
    "records.curves(metrics, 'train/loss');",
    "print('still on', socket.gethostname(), 'with', len(metrics), 'values')",
]
# Jupyter's question whether to fetch its news, and fetching it, is not ours to test.
NEWS = ".jupyter/lab/user-settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"


@pytest.fixture(scope="module")
def laptop(served) -> Laptop:
    """A laptop with two runs on the worker, and a notebook there that looks at them."""
    laptop, worker = served, served.hosts.worker
    laptop.hosts.clean("served")
    if IMAGES:
        train(worker)
    else:
        for rate in (0.1, 0.2):
            laptop.lab("run", "--follow", "with", "steps=30", f"lr={rate}")
    worker.write(NEWS, '{"fetchNews": "false", "checkForUpdates": false}')
    cells = [
        {"cell_type": "code", "id": f"cell-{number}", "source": source, "metadata": {}}
        for number, source in enumerate(CELLS)
    ]
    empty = {"execution_count": None, "outputs": []}
    kernel = {"name": "my-experiment", "display_name": "", "language": "python"}
    text = {"cells": [{**cell, **empty} for cell in cells], "metadata": {"kernelspec": kernel}}
    text |= {"nbformat": 4, "nbformat_minor": 5}
    laptop.there("work/notebooks/two_runs.ipynb").write_text(json.dumps(text))
    yield laptop
    for host in laptop.hosts.all:  # whoever comes next brings the homes that they want
        host.clean()


def train(worker) -> None:
    """Train twice on the worker, in the project that make demo made outside of the hosts."""
    runs = f"{worker.home_inside}/lab/my-experiment/runs"
    for rate in (0.003, 0.03):
        command = [".venv/bin/python", "-m", "my_experiment.experiment", "with", f"lr={rate}"]
        worker.run(
            *command,
            cwd=TEMPLATE / "build/demo/my-experiment",
            user="root",  # whose project that is
            env={"LAB_RUNS": runs, "OMP_NUM_THREADS": "1"},
            timeout=600,
        )
    worker._sh(f"chown -R ada:ada {runs}")


@pytest.fixture(scope="module")
def browser(laptop, tmp_path_factory):
    """Chromium in the laptop's namespaces, and so on its network; playwright's pipe leads there."""
    words = laptop.hosts.laptop.enter(CHROMIUM)
    start = tmp_path_factory.mktemp("chromium") / "start"
    start.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    start.chmod(0o755)
    expect.set_options(timeout=SECONDS * 1000)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=start, args=OPTIONS, env=laptop.hosts.laptop.environment()
        )
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, laptop) -> Page:
    page = browser.new_page(viewport={"width": 1200, "height": 700}, color_scheme="light")
    page.set_default_timeout(SECONDS * 1000)
    yield page
    page.close()
    laptop.hosts.heal()


def save_image(page: Page, name: str) -> None:
    if IMAGES:
        page.screenshot(path=Path(IMAGES, name))


def run_cell(page: Page, number: int):
    """Run a cell as a person does, once the kernel is there and idle; its outputs."""
    cell = page.locator(".jp-Notebook .jp-CodeCell").nth(number)
    cell.locator(".cm-content").click()
    page.get_by_role("button", name=IDLE).wait_for()
    page.keyboard.press("Shift+Enter")
    return cell.locator(".jp-OutputArea-output")


def test_jupyterlab_opens_in_the_browser_and_draws_with_the_machines_kernel(laptop, page):
    page.goto(notebook(laptop, "--no-open"))
    kernels = page.locator(".jp-LauncherCard[data-category=Notebook]")
    expect(kernels).to_contain_text(["My Experiment"])  # this one alone
    for name in ("notebooks", "two_runs.ipynb"):
        page.locator(".jp-DirListing-item", has_text=name).dblclick()
    expect(run_cell(page, 0)).to_have_text("this runs on worker")
    plot = run_cell(page, 1).locator("img")
    expect(plot).to_be_visible()
    assert plot.evaluate("image => image.naturalWidth") > 300
    page.keyboard.press("Control+s")
    expect(page.locator(".jp-mod-dirty")).to_have_count(0)
    assert "image/png" in laptop.there("work/notebooks/two_runs.ipynb").read_text()
    page.get_by_role("button", name=IDLE).wait_for()
    save_image(page, "jupyter.png")


def test_the_open_page_continues_with_the_same_kernel_after_a_lost_connection(laptop, page):
    url = notebook(laptop, "--no-open")
    page.goto(url.replace("/lab?", "/lab/tree/notebooks/two_runs.ipynb?"))
    for number in (0, 1):
        expect(run_cell(page, number).first).to_be_visible()
    dialog = page.get_by_role("dialog")
    # of a request that was on its way: no other dialog opens before it is closed
    page.add_locator_handler(dialog.filter(has_text="Failed to fetch"), close)
    laptop.hosts.refuse()  # seen at once: the longer a page tries in vain, the later it tries again
    expect(dialog).to_contain_text("JupyterLab will continue trying to reconnect")
    laptop.hosts.heal()
    until(lambda: tunnels(laptop)[0]["state"] == "answers", SECONDS)
    page.add_locator_handler(dialog, close)  # it may come once more
    expect(run_cell(page, 2)).to_have_text("still on worker with 60 values")


def close(dialog) -> None:
    dialog.get_by_role("button", name="Close").click()


def last_loss(laptop) -> str:
    """The last training loss of the first run, as TensorBoard writes it."""
    points = min(laptop.there("runs").glob("2*/metrics.jsonl")).read_text().splitlines()
    losses = [p["value"] for p in map(json.loads, points) if p["metric"] == "train/loss"]
    return f"{losses[-1]:.4f}"


def test_tensorboard_shows_the_curves_of_recorded_runs_in_the_browser(laptop, page):
    url = laptop.lab("tensorboard", "--no-open", env=QUICK).splitlines()[-1]
    until(
        lambda: len(json.loads(get(laptop, url, "data/runs", seconds=5)[1] or "[]")) == 2, SECONDS
    )
    page.goto(f"{url}?tagFilter=train")  # cards below the window are not made
    card = page.locator("scalar-card", has_text="train/loss")
    card.scroll_into_view_if_needed()
    expect(card.locator("tb-data-table")).to_contain_text(last_loss(laptop)[:5])
    curves = card.locator(".series-view > svg path")
    expect(curves).to_have_count(4)  # of each run as it is, and smoothed
    for curve in curves.all():
        assert curve.get_attribute("d").count(",") >= (25 if IMAGES else 30), "a point for each"
    save_image(page, "tensorboard.png")
