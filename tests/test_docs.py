"""What README and the pages name is there: files, headings, modules."""

import importlib
import importlib.util
import json
import re

import pytest

from tests.conftest import ROOT

PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
ROOMS = [".ci", "benchmarks", "configs", "docs", "launch", "notebooks", "skullgan_jax", "tests"]
FENCED = re.compile(r"^```.*?^```$|^ {4}.*?$", re.M | re.S)
LINK = re.compile(r"\]\((?![a-z]+:)([^)#\s]*)(?:#([^)\s]+))?\)")
PATH = re.compile(rf"(?<![\w/.-])(?:{'|'.join(map(re.escape, ROOMS))})/[\w./*-]*[\w/*]")
NAME = re.compile(r"(?<![\w/.-])skullgan_jax(?:\.\w+)+")
IMPORT = re.compile(r"^from (skullgan_jax[\w.]*) import ([\w, ]+)", re.M)


def pages():
    return [pytest.param(page, id=str(page.relative_to(ROOT))) for page in sorted(PAGES)]


def anchors(page) -> set[str]:
    """Those of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", page.read_text()), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", pages())
def test_its_links_lead_somewhere(page):
    for path, anchor in LINK.findall(FENCED.sub("", page.read_text())):
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), f"{path}#{anchor}"


@pytest.mark.parametrize("page", pages())
def test_the_files_it_names_are_there(page):
    for path in PATH.findall(page.read_text()):
        assert any(ROOT.glob(path)), path


@pytest.mark.parametrize("page", pages())
def test_the_modules_it_names_import(page):
    text = page.read_text()
    names = set(NAME.findall(text))
    for module, imported in IMPORT.findall(text):
        names |= {f"{module}.{name.strip()}" for name in imported.split(",")}
    for name in names:
        assert resolves(name), name


def resolves(name: str) -> bool:
    """Whether a dotted name is a module, or what one has."""
    module, attributes = name, []
    while not spec_of(module):
        module, _, attribute = module.rpartition(".")
        attributes.insert(0, attribute)
    found = importlib.import_module(module) if attributes else None
    for attribute in attributes:
        if not hasattr(found, attribute):
            return False
        found = getattr(found, attribute)
    return True


def spec_of(module: str):
    try:
        return importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return None


@pytest.mark.parametrize("name", ["train", "inference"])
def test_the_page_of_a_notebook_shows_its_code(name):
    """Else `make notebooks` makes it anew."""
    cells = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text())["cells"]
    shown = re.sub(r"\n{2,}", "\n\n", (ROOT / "docs" / "notebooks" / f"{name}.md").read_text())
    for cell in cells:
        source = re.sub(r"\n{2,}", "\n\n", "".join(cell["source"])).strip()
        assert source in shown, cell["id"]
