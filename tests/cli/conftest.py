"""What the tests of the command line share: a tiny run, and a call in this process."""

from collections.abc import Callable

import pytest

from metarl.cli.main import main

TINY = [
    "--iterations=2",
    "--num-tasks=2",
    "--num-episodes=3",
    "--env.horizon=8",
    "--agent.policy.hidden=[8]",
    "--tracking.mode=disabled",
]


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """The folder of a finished run."""
    directory = tmp_path_factory.mktemp("runs") / "tiny"
    assert main(["train", "point_nav/maml_trpo", *TINY, "--out", str(directory)]) == 0
    return directory


@pytest.fixture
def output(capsys) -> Callable[..., tuple[int, str, str]]:
    """Runs a command; returns its exit code, stdout and stderr."""

    def call(*words):
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
