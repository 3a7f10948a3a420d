"""What several test files share: a test file imports from here, never from another test file."""

import pytest

# their asserts explain themselves as those of test files do
for name in ("files", "hosts", "jobs", "laptop", "notebook", "projects", "slurm_bed", "terminal"):
    pytest.register_assert_rewrite(f"helpers.{name}")
