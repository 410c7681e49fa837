"""examples/use_adapted_policy.py: the file drives the robot in a process without metarl."""

import runpy
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "use_adapted_policy.py"
DRIVE = """
import runpy, sys
distance = runpy.run_path(sys.argv[1])["drive"](sys.argv[2])
assert not {"metarl", "torch"} & {name.split(".")[0] for name in sys.modules}
assert distance < -25, distance
"""


def test_it_runs_backward(tmp_path):
    runpy.run_path(str(EXAMPLE))["export"](tmp_path / "policy.onnx")
    command = [sys.executable, "-c", DRIVE, EXAMPLE, tmp_path / "policy.onnx"]
    done = subprocess.run([*map(str, command)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "displacement -" in done.stdout
