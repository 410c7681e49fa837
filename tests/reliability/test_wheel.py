"""The built wheel works by itself: installed elsewhere, away from the repository.

Nothing here needs a network. The wheel is built with the hatchling of the running environment
and goes into an environment of its own. That one borrows the dependencies, torch above all,
through a `.pth` file that names the running environment's site-packages. Python does not read
`.pth` files inside a folder added in that way, so the editable install of the repository stays
unseen, and `metarl` can only come from the wheel.
"""

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).resolve().parent.parent.parent


def run(command: list[str | Path], cwd: Path, env: dict[str, str] | None = None) -> str:
    """Run a command, insist on exit code 0 and return what it printed."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    told = f"{command} exited with {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert done.returncode == 0, told
    return done.stdout


def build(out: Path, *options: str) -> Path:
    """Build the repository into the folder `out` and return the wheel."""
    run([sys.executable, "-m", "build", "--no-isolation", "-o", out, *options, REPO], cwd=REPO)
    (wheel,) = out.glob("metarl_torch-*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that is built from the repository."""
    return build(tmp_path_factory.mktemp("dist"), "--wheel")


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds the wheel and borrows its dependencies."""
    folder = tmp_path_factory.mktemp("clean") / "env"
    run([sys.executable, "-m", "venv", "--without-pip", folder], cwd=folder.parent)
    python = folder / "bin" / "python"
    install = ["install", "--no-deps", "--no-index", "--disable-pip-version-check", wheel]
    run([sys.executable, "-m", "pip", "--python", python, *install], cwd=folder.parent)
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site_packages(python) / "borrowed.pth").write_text("\n".join(sorted(borrowed)) + "\n")
    return python


def declared() -> dict[str, Any]:
    """Return the section `project` of pyproject.toml."""
    return tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def files_in(wheel: Path) -> dict[str, int]:
    """Return the checksum of each file in the wheel by its name."""
    with zipfile.ZipFile(wheel) as archive:
        return {file.filename: file.CRC for file in archive.infolist()}


def clean_variables(home: Path) -> dict[str, str]:
    """Return the caller's environment variables without those that could lead to the repository."""
    steering = ("PYTHON", "PYTEST", "VIRTUAL_ENV", "METARL", "WANDB")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(steering)}
    return {**kept, "HOME": str(home)}


def site_packages(python: Path) -> Path:
    """Return the folder of the packages of an environment."""
    query = [python, "-I", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    return Path(run(query, cwd=python.parent).strip())


@pytest.mark.skipif(os.name != "posix", reason="looks for the command in the folder bin")
def test_installed_wheel_runs_outside_the_repository(python: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "envs").mkdir(parents=True)  # a project's own, which is not ours
    (elsewhere / "envs" / "__init__.py").write_text("raise ImportError('not that one')")
    env = clean_variables(home=elsewhere)

    show = "import metarl, metarl.envs; print(metarl.__file__); print(metarl.envs.__file__)"
    for place in run([python, "-c", show], elsewhere, env).splitlines():
        assert Path(place).is_relative_to(site_packages(python)), place

    command = python.parent / "metarl"
    version = run([command, "--version"], elsewhere, env)
    assert run([python, "-m", "metarl", "--version"], elsewhere, env) == version
    assert version == f"{declared()['version']}\n"
    assert "half_cheetah_vel/maml_trpo" in run([command, "list", "configs"], elsewhere, env)
    run([command, "train", "half_cheetah_vel/maml_trpo", "--dry-run"], elsewhere, env)
    assert "pretrained/half_cheetah_dir" in run([command, "list", "pretrained"], elsewhere, env)
    sizes = ["--tasks", "2", "--episodes", "2", "--steps", "1"]
    shown = run([command, "evaluate", "pretrained/half_cheetah_dir", *sizes], elsewhere, env)
    assert "runs/pretrained/half_cheetah_dir/evaluation/" in shown
    assert list((elsewhere / "runs/pretrained/half_cheetah_dir/evaluation").glob("*.json"))
    adapt = (
        "import metarl; name = 'pretrained/point_nav';"
        "env = metarl.Run.open(name).make_env([0.3, 0]);"
        "print(metarl.load(name).adapt_to(env, episodes=2).to_torch())"
    )
    assert "GaussianModule" in run([python, "-c", adapt], elsewhere, env)


def test_wheel_holds_every_config_and_no_tests(wheel: Path) -> None:
    names = files_in(wheel)
    for path in (REPO / "configs").rglob("*.yaml"):
        assert f"metarl/{path.relative_to(REPO).as_posix()}" in names
    needed = {"metarl/reporting/templates/report.html", "metarl/reporting/templates/model_card.md"}
    needed |= {"metarl/configs/measured.json", "metarl/py.typed"}
    for path in (REPO / "metarl" / "pretrained").glob("*/*"):
        needed.add(path.relative_to(REPO).as_posix())
    assert {*needed, "metarl/envs/external/meta_world_requirements.txt"} <= names.keys()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"metarl"}
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_what_an_index_shows_of_the_package(wheel: Path) -> None:
    """Names, addresses, and README.md with links that work away from the repository."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [each for each in archive.namelist() if each.endswith(".dist-info/METADATA")]
        found = HeaderParser().parsestr(archive.read(name).decode())
    assert found["Author"] == "The metarl authors"
    urls = dict(each.split(", ") for each in found.get_all("Project-URL", []))
    assert urls == declared()["urls"]
    text = found.get_payload()
    assert isinstance(text, str)
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert f"{urls['Homepage']}/raw/main/videos/half_cheetah_dir.gif" in links
    assert f"{urls['Homepage']}/blob/main/docs/quickstart.md" in links
    assert [link for link in links if not link.startswith("https://")] == []
    for link in links:
        path = link.removeprefix(f"{urls['Homepage']}/").split("/main/")[1].split("#")[0]
        assert (REPO / path).is_file(), link


def test_the_version_is_the_same_everywhere() -> None:
    version = declared()["version"]
    changes = (REPO / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(version)} \(\d{{4}}-\d\d-\d\d\)$", changes, re.MULTILINE)
    assert f"\nversion: {version}\n" in (REPO / "CITATION.cff").read_text(encoding="utf-8")


def test_the_licence_names_its_owner() -> None:
    text = (REPO / "LICENSE").read_text(encoding="utf-8")
    assert "Copyright 2026 The metarl authors" in text
    assert "[yyyy]" not in text


def test_a_package_called_envs_and_ours_do_not_meet(python: Path, tmp_path: Path) -> None:
    """A project of that name may be installed over the wheel: neither overwrites the other."""
    other = site_packages(python) / "envs"
    assert not other.exists()
    other.mkdir()
    (other / "__init__.py").write_text("PointNav = 'theirs'")
    show = "import envs, metarl.envs; print(envs.PointNav, metarl.envs.PointNav.name)"
    assert run([python, "-c", show], tmp_path, clean_variables(tmp_path)) == "theirs point_nav\n"


def test_source_archive_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    # Without --wheel, build makes the source archive and then the wheel from that archive.
    assert files_in(build(tmp_path)) == files_in(wheel)
