"""Run the notebooks and keep what they show as pages with pictures in docs/notebooks (`make notebooks`)."""

import base64
import io
import pathlib
import re
import tempfile

import nbformat
from nbclient import NotebookClient
from nbconvert import MarkdownExporter
from PIL import Image
from traitlets.config import Config

HERE = pathlib.Path(__file__).resolve().parent
DOCS = HERE.parent / "docs" / "notebooks"
NAMES = ("train", "inference")  # in this order: the second draws from what the first trained


def run(name: str, folder: str):
    """The notebook with its outputs, run from top to bottom in `folder`; its file stays as it is."""
    notebook = nbformat.read(HERE / f"{name}.ipynb", as_version=4)
    NotebookClient(notebook, timeout=None, resources={"metadata": {"path": folder}}).execute()
    return notebook


def write(name: str, notebook, folder: str) -> None:
    """The page of a notebook that was run in `folder`, and its pictures, named after their cells."""
    for old in DOCS.glob(f"{name}_*.png"):
        old.unlink()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = _joined(cell.outputs)
            pictures = [output for output in cell.outputs if "image/png" in output.get("data", {})]
            for i, output in enumerate(pictures):
                file = f"{name}_{cell.id}{i or ''}.png"
                _write_small(DOCS / file, base64.b64decode(output.data["image/png"]))
                output.metadata["filenames"] = {"image/png": file}
    named = Config({"ExtractOutputPreprocessor": {"enabled": False}})  # it would name pictures by numbers
    body, _ = MarkdownExporter(config=named).from_notebook_node(notebook)
    for path in (str(HERE.parent), folder):
        if path in body:
            raise SystemExit(f"{name}.ipynb: its output has the path {path}")
    body = re.sub(r"[ \n]*\n\n", "\n\n", body.replace("![png]", f"![{name}.ipynb]")).strip()
    note = f"*[{name}.ipynb](../../notebooks/{name}.ipynb) as it ran; `make notebooks` makes this page anew.*"
    (DOCS / f"{name}.md").write_text(f"{note}\n\n{body}\n")


def _joined(outputs: list) -> list:
    """What a cell prints in one piece, however many messages it came in."""
    joined = []
    for output in outputs:
        if joined and output.output_type == "stream" and output.get("name") == joined[-1].get("name"):
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def _write_small(path: pathlib.Path, png: bytes) -> None:
    """A picture of 128 colours: a third of the bytes, and to the eye the same."""
    picture = Image.open(io.BytesIO(png)).convert("RGB").quantize(128, dither=Image.Dither.NONE)
    picture.save(path, optimize=True)


def main() -> None:
    """Both notebooks in one folder, which is removed."""
    DOCS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in NAMES:
            write(name, run(name, folder), folder)


if __name__ == "__main__":
    main()
