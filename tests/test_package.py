"""What is packed, and how: metadata, the page of a package index, configurations found anywhere, the light install."""

import pathlib
import re
import shutil
import tomllib

import pytest

import skullgan_jax
from skullgan_jax.command.flags import refusing
from skullgan_jax.errors import InputError
from skullgan_jax.machine import extras
from skullgan_jax.train import config

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_a_shipped_config_is_found_where_the_folder_has_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, colon, size = config.find("configs/skull.py:demo").rpartition(":")
    assert (pathlib.Path(path), colon, size) == (ROOT / "configs" / "skull.py", ":", "demo")
    assert config.find("configs/celeba.py") == str(ROOT / "configs" / "celeba.py")
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    assert config.find("configs/skull.py:demo") == "configs/skull.py:demo"  # one's own goes first


def test_a_config_that_is_nowhere_names_those_that_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("configs/large.py", "skulls.py:demo", "", "train/loop.py"):
        with pytest.raises(InputError, match=r"no such file; give one, .*configs/celeba.py, configs/skull.py"):
            config.find(name)


def test_the_words_of_a_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    skull = ROOT / "configs" / "skull.py"
    words = ["main", "--config", "configs/skull.py", "--config.epochs=3", "--workdir=configs/skull.py"]
    assert config.found(words) == ["main", "--config", str(skull), *words[3:]]
    assert config.found(["main", "-config=configs/skull.py:demo"]) == ["main", f"-config={skull}:demo"]


@pytest.mark.parametrize("name", ["train", "inference"])
def test_notebooks_look_for_nothing_in_a_clone(name):
    text = (ROOT / "notebooks" / f"{name}.ipynb").read_text()
    assert 'find(\\"configs/skull.py\\")' in text
    assert "__file__" not in text


def test_the_page_of_an_index_points_to_no_file_of_the_clone():
    page = (ROOT / "README.md").read_text()
    for change in PROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        page = re.sub(change["pattern"], change["replacement"], page)
    pointed = re.findall(r"\]\(([^)]*)\)", page) + re.findall(r"""(?:src|href)=["']([^"']*)""", page)
    assert any("arxiv.org" in to for to in pointed)
    assert [to for to in pointed if not to.startswith(("https://", "#"))] == []


def test_the_light_install_is_part_of_the_whole():
    lines = pathlib.Path(skullgan_jax.__path__[0], "light.txt").read_text().splitlines()
    light = {line for line in lines if not line.startswith("#")}
    assert light <= set(PROJECT["project"]["dependencies"])
    left_out = set(PROJECT["project"]["dependencies"]) - light
    for package in ("tensorflow-cpu", "tensorflow-datasets", "scikit-learn", "python-gdcm", "matplotlib"):
        assert any(line.startswith(package) for line in left_out)


def test_every_dependency_is_locked():
    locked = set(re.findall(r"(?m)^([\w.-]+)==", (ROOT / "requirements.lock").read_text()))
    project = PROJECT["project"]
    named = [
        *project["dependencies"],
        *(p for e in ("test", "docs", "notebooks") for p in project["optional-dependencies"][e]),
    ]
    names = {re.match(r"[\w.-]+", line)[0].replace("_", "-") for line in named}
    assert names <= locked
    assert "torch==2.13.0" in (ROOT / "requirements.lock").read_text()


def test_a_missing_package_is_told_in_a_line(capsys):
    with pytest.raises(InputError, match=r"^nosuch is needed .*: pip install 'skullgan_jax\[fid\]' brings it$"):
        extras.need("nosuch.module", "fid")
    with pytest.raises(InputError, match=r"^nosuch is needed .*: pip install skullgan_jax brings it$"):
        extras.check("json", "nosuch")
    with pytest.raises(SystemExit) as ended, refusing():
        raise ModuleNotFoundError(name="sklearn.manifold")
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said == "error: sklearn is needed for this and not installed: pip install skullgan_jax brings it\n"
    with pytest.raises(ModuleNotFoundError), refusing():  # a fault of ours, not of the installation
        raise ModuleNotFoundError(name="skullgan_jax.nosuch")
