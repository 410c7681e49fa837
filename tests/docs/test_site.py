"""The site: it can be built, every link on it leads somewhere, and a browser shows it as files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import metarl
from tests.browser import DESK, PHONE, accessibility_violations, overflow

ROOT = Path(__file__).parents[2]
VIEWS = [(width, scheme) for width in (DESK, PHONE) for scheme in ("light", "dark")]
PAGES = [(name, *view) for name in ("index", "equations", "guides/see_it_adapt") for view in VIEWS]
PAGES += [("methods", PHONE, "light"), ("quickstart", DESK, "dark")]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site; warnings, such as of a link to nothing, are errors."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
    env = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_there_and_no_results(site):
    pages = {path.relative_to(ROOT / "docs").with_suffix("") for path in ROOT.glob("docs/**/*.md")}
    pages -= {path for path in pages if path.is_relative_to("results/runs")}
    assert {path for path in pages if not (site / f"{path}.html").is_file()} == set()
    assert list(site.rglob("*.pt")) + list(site.rglob("results/**/*.json")) == []


def test_all_names_of_the_package_are_in_the_reference(site):
    found = re.findall(r'<h3 id="([^"]+)"', (site / "api.html").read_text())
    assert {f"metarl.{name}" for name in metarl.__all__} <= {*found}


def test_links_to_files_of_the_repository_lead_to_the_public_one(site):
    text = (site / "extending.html").read_text()
    place = "https://github.com/metarl/metarl"
    assert f'href="{place}/blob/main/examples/momentum.py"' in text
    assert f'href="{place}/tree/main/envs/contract"' in text
    # README's links stay on the site.
    found = re.findall(r'href="(https://github[^"]*\.md)"', (site / "index.html").read_text())
    assert found == []


def test_equations_are_drawings_with_their_source_as_text(site):
    text = (site / "equations.html").read_text()
    assert text.count('<svg class="math" role="img" aria-label="') > 40
    assert r'aria-label="\theta' in text
    assert "arithmatex" not in text
    for page in site.rglob("*.html"):
        assert r"\(" not in re.sub(r"<(pre|code|svg)\b.*?</\1>", "", page.read_text(), flags=re.S)


@pytest.mark.parametrize(("name", "width", "scheme"), PAGES)
def test_a_browser_shows_it(site, open_page, name, width, scheme):
    """As files: nothing is fetched, nothing is wider than the window, axe-core finds nothing
    serious."""
    page = open_page(site / f"{name}.html", width=width, scheme=scheme)
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (colour == "rgb(255, 255, 255)") == (scheme == "light")
    assert overflow(page) <= 0
    if page.locator(".md-content table").count():
        page.locator(".md-typeset__scrollwrap[tabindex]").first.wait_for()
    assert accessibility_violations(page, "serious") == []


WIDER = """() => [...document.querySelectorAll(".md-typeset__scrollwrap")]
    .filter(wrap => wrap.scrollWidth > wrap.clientWidth + 1)
    .map(wrap => wrap.querySelector("th").closest("tr").innerText)"""


@pytest.mark.parametrize("name", ["comparison", "config", "reliability"])
def test_tables_are_shown_in_their_whole_width(site, open_page, name):
    """On a desk; otherwise their last column, often the interval, is hidden."""
    page = open_page(site / f"{name}.html", width=DESK)
    page.locator(".md-typeset__scrollwrap[tabindex]").first.wait_for()
    assert page.evaluate(WIDER) == []


def test_the_search_finds_a_page(site, open_page):
    page = open_page(site / "index.html")
    page.locator("input.md-search__input").fill("plasticity")
    page.locator("a.md-search-result__link").first.wait_for()
    assert "plasticity" in page.locator(".md-search-result__list").inner_text()
