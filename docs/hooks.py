"""The site is made of files as they stand in the repository, so that no page is a copy that grows old (mkdocs.yml).

README and its neighbours are pages; a link to any other file of the repository leads to that file, laid into the site;
`{{ skullgan sample --help }}` is what that command prints.
"""

import os
import pathlib
import posixpath
import re
import subprocess
import sys

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "skullgan_jax/model/starter/MODEL_CARD.md": "starter.md",
}
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)")
_HELP = re.compile(r"\{\{ skullgan (.+) \}\}")
_FROM_A_NETWORK = re.compile(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^>]*>")


def on_files(files, config):
    """The pages that lie outside docs/."""
    for name, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links of the repository become those of the site, and commands what they print."""
    here = pathlib.Path(page.file.abs_src_path).parent

    def in_site(link):
        path = os.path.relpath(here / link[1], ROOT)
        if path in PAGES:
            target = PAGES[path]
        elif path.startswith("docs/"):
            target = path.removeprefix("docs/")
        else:
            target = f"files/{path}"
            if files.get_file_from_path(target) is None and (ROOT / path).is_file():
                files.append(File.generated(config, target, abs_src_path=str(ROOT / path)))
        return posixpath.relpath(target, posixpath.dirname(page.file.src_uri))

    return _HELP.sub(lambda command: _printed(command[1].split()), _LINK.sub(in_site, markdown))


def on_post_page(output, page, config):
    """A page that would load something from a network fails the build."""
    if found := _FROM_A_NETWORK.search(output):
        raise PluginError(f"{page.file.src_uri}: would be loaded from a network: {found[0]}")
    return output


def _printed(args: list[str]) -> str:
    command = pathlib.Path(sys.executable).with_name("skullgan")
    done = subprocess.run([command, *args], capture_output=True, text=True, env=os.environ | {"COLUMNS": "96"})
    if done.returncode:
        raise PluginError(f"skullgan {' '.join(args)}: exit {done.returncode}: {done.stderr}")
    return done.stdout.strip()
