# Work on the template itself. Each target does its own set-up.

PYTHON ?= python3
ENVIRONMENT := .venv
WORKERS ?= 4

.PHONY: test test-fast check collect demo wheel release lock bench bench-records bench-remote images clean

# A bare make installs no programs.
.DEFAULT_GOAL := check

# On two cores: some tests wait for a connection, while others compute.
test: $(ENVIRONMENT)/ready-to-test
	$(MAKE) --jobs=2 check collect
	PATH="$(CURDIR)/$(ENVIRONMENT)/bin:$$PATH" $(ENVIRONMENT)/bin/python -m pytest --numprocesses=$(WORKERS) --dist=loadgroup $(ARGS)

# While you edit: no hosts, no torch.
test-fast: $(ENVIRONMENT)/ready
	PATH="$(CURDIR)/$(ENVIRONMENT)/bin:$$PATH" $(ENVIRONMENT)/bin/python -m pytest --numprocesses=2 -m "not hosts and not environment and not slow" $(ARGS)

# The linter, the format, the types, and which sub-package imports which.
check: $(ENVIRONMENT)/ready
	$(ENVIRONMENT)/bin/ruff check .
	$(ENVIRONMENT)/bin/ruff format --check .
	cd lab && ../$(ENVIRONMENT)/bin/mypy
	cd lab && PYTHONPATH=src ../$(ENVIRONMENT)/bin/lint-imports --no-cache

# Let Python compile the tests once: else each worker does, at the same time.
collect: $(ENVIRONMENT)/ready
	PATH="$(CURDIR)/$(ENVIRONMENT)/bin:$$PATH" $(ENVIRONMENT)/bin/python -m pytest --collect-only -qq >/dev/null || true

# Bake a project with the default answers into build/, then train its first recorded run.
demo: $(ENVIRONMENT)/ready
	rm -rf build/demo
	$(ENVIRONMENT)/bin/python -m cookiecutter --no-input . -o build/demo
	cd build/demo/my-experiment && .venv/bin/python -m my_experiment.data prepare
	cd build/demo/my-experiment && .venv/bin/python -m my_experiment.experiment

# Measure the promises about speed against their rivals; ARGS="generation training" measures some.
bench: $(ENVIRONMENT)/ready
	PATH="$(CURDIR)/$(ENVIRONMENT)/bin:$$PATH" $(ENVIRONMENT)/bin/python benchmarks/run.py $(ARGS)

# What recording a run costs, and listing 10,000 of them, against Sacred as it comes and bare loops.
bench-records: demo
	$(ENVIRONMENT)/bin/python benchmarks/tracking.py build/demo/my-experiment
	build/demo/my-experiment/.venv/bin/python benchmarks/records.py

# What the remote side costs, against plain ssh, git and rsync, on the test bed's hosts.
bench-remote: $(ENVIRONMENT)/ready-to-test
	PATH="$(CURDIR)/$(ENVIRONMENT)/bin:$$PATH" $(ENVIRONMENT)/bin/python benchmarks/remote.py

# The images in README and docs, from real trainings.
images: demo $(ENVIRONMENT)/ready-to-test
	PATH="$(CURDIR)/$(ENVIRONMENT)/bin:$$PATH" SAVE_IMAGES=docs $(ENVIRONMENT)/bin/python -m pytest tests/test_browser.py -k "draws or shows"
	PATH="$(CURDIR)/$(ENVIRONMENT)/bin:$$PATH" $(ENVIRONMENT)/bin/python scripts/first_run.py

# Build lab/ into the template: the wheel in vendor/, its pin, and its line in the lock.
wheel: $(ENVIRONMENT)/ready
	PATH="$(CURDIR)/$(ENVIRONMENT)/bin:$$PATH" $(ENVIRONMENT)/bin/python scripts/wheel.py

# Version, CHANGELOGs, wheel, commit and tag: make release VERSION=1.2.3
release: $(ENVIRONMENT)/ready
	PATH="$(CURDIR)/$(ENVIRONMENT)/bin:$$PATH" $(ENVIRONMENT)/bin/python scripts/release.py $(VERSION)

# Compile the generated project's requirements.txt; UV_ARGS="--upgrade" takes the newest packages.
lock: $(ENVIRONMENT)/ready
	rm -rf build/lock
	DL_TEMPLATE_SKIP=venv,kernel,git $(ENVIRONMENT)/bin/python -m cookiecutter --no-input . -o build/lock
	cd build/lock/my-experiment && PATH="$(CURDIR)/$(ENVIRONMENT)/bin:$$PATH" PYTHONPATH="$(CURDIR)/lab/src" "$(CURDIR)/$(ENVIRONMENT)/bin/python" -m lab.cli lock $(UV_ARGS)
	cp build/lock/my-experiment/requirements.txt '{{cookiecutter.project_slug}}/requirements.txt'

$(ENVIRONMENT)/ready: pyproject.toml scripts/prepare.sh
	sh scripts/prepare.sh $(PYTHON) $(ENVIRONMENT)
	touch $@

# The tests also need the programs of their three hosts. One step installs both.
$(ENVIRONMENT)/ready-to-test: pyproject.toml scripts/prepare.sh
	sh scripts/prepare.sh $(PYTHON) $(ENVIRONMENT) hosts
	touch $(ENVIRONMENT)/ready $@

clean:
	rm -rf build $(ENVIRONMENT)
