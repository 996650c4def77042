"""The benchmark's other queues run this worker's own job code, in environments with few of its packages."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks import environments

#: Imports the job where only the packages named as arguments can be imported.
_IMPORT_WITH_THESE_ALONE = """
import sys
from importlib.metadata import packages_distributions
known, there = packages_distributions(), {"lock-worker", *sys.argv[1:]}
class Refuse:
    def find_spec(self, name, path=None, target=None):
        distributions = known.get(name.partition(".")[0], ())
        if distributions and there.isdisjoint(one.lower().replace("_", "-") for one in distributions):
            raise ModuleNotFoundError(f"{name} is not in this environment")
sys.meta_path.insert(0, Refuse())
import benchmarks.peers.job
"""


@pytest.mark.parametrize("name", environments.names())
def test_the_job_needs_no_package_that_an_environment_lacks(name: str) -> None:
    command = [sys.executable, "-c", _IMPORT_WITH_THESE_ALONE, *environments.versions(name)]
    run = subprocess.run(command, cwd=environments.ROOT, capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stderr
