"""The commands of a report and of a model card, run from where they say."""

from __future__ import annotations

import contextlib
import html
import re
import shlex

import metarl
from metarl.cli.main import main
from metarl.runs.result_files import read_results
from metarl.training.loop import train
from tests.reporting.test_report import TINY


def test_the_commands_of_a_report_repeat_its_numbers(tmp_path):
    """In a folder of an awkward name, with another checkpoint, seed, step size and baseline, and on
    tasks of one's own."""
    with contextlib.chdir(tmp_path):
        name = "my runs/it's"
        config = metarl.load_config("point_nav/maml_trpo", **{**TINY, "checkpoint_every": 1})
        folder = train(config, name).directory
        little = ["--tasks=2", "--episodes=2", "--steps=1"]
        more = ["--checkpoint=2", "--seed=4", "--agent.inner.lr=0.1", "--against=random"]
        assert main(["evaluate", name, *little, *more]) == 0
        assert main(["evaluate", name, *little[:2], "--protocol=few_episode"]) == 0
        few = ["--protocol=few_episode", "--experience", "1", "4"]
        assert main(["evaluate", name, *little[:2], *few]) == 0
        strong = ["--perturbations=observation_noise=0.3,1", "--perturbations", "action_delay=3"]
        assert main(["evaluate", name, *little, "--protocol=robust", *strong]) == 0
        assert main(["evaluate", name, "--tasks=5", *little[1:], "--protocol=continual"]) == 0
        own = ["--task", "0.1", "-0.2", "--task=-0.3,0.1", "--deterministic"]
        assert main(["evaluate", name, *little[1:], *own]) == 0
        assert main(["report", name]) == 0
        page = (folder / "report" / "report.html").read_text()
        block = re.search(r"repeat this</h2>.*?<pre[^>]*>(.*?)</pre>", page, re.DOTALL)[1]
        lines = html.unescape(block).splitlines()
        assert len(lines) == 7
        assert sum("--perturbations observation_noise=0.3,1 --pert" in line for line in lines) == 1
        assert ["--experience" in line for line in lines].count(True) == 1
        for line in lines:
            assert main(shlex.split(line)[1:]) == 0, line
        files = sorted(path.name for path in (folder / "evaluation").glob("*.json"))
        repeated = folder.with_name("it's-repeated") / "evaluation"
        assert sorted(path.name for path in repeated.glob("*.json")) == files
        for file in files:
            again, first = (read_results(each / file) for each in (repeated, folder / "evaluation"))
            assert list(again) == ["maml_trpo", *["random"] * ("checkpoint_2" in file)]
            for label, parts in first.items():
                for part, result in parts.items():
                    assert result.returns.tolist() == again[label][part].returns.tolist()
        card = (folder / "report" / "model_card.md").read_text()
        line = re.search(r"^metarl evaluate (.*)$", card, re.MULTILINE)[1]
        assert main(["evaluate", *shlex.split(line), *little]) == 0
