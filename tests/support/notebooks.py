"""Runs the notebooks of examples/ as in a clone, and stores what they show for those who only look at them.

    make tutorials                                      # all of them, in a quarter of an hour on two idle cores
    python -m tests.support.notebooks first_forecast    # one

Paths and addresses of this machine are left out of what is stored, and pictures are made small.
"""

import base64
import hashlib
import io
import re
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageSequence

from tests.support.paths import ROOT

EXAMPLES = ROOT / "examples"
NOTEBOOKS = sorted(path.stem for path in EXAMPLES.glob("*.ipynb"))
MOST_COLOURS = 64


def run_notebook(name, folder, **kwargs):
    """Run a notebook in a new folder that looks like a clone, and return it with its outputs."""
    import nbclient
    import nbformat

    for needed in ("models", "launch", "ds_configs"):
        (folder / needed).symlink_to(ROOT / needed)
    shutil.copytree(EXAMPLES, folder / "examples")
    notebook = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    where = {"metadata": {"path": str(folder / "examples")}}
    client = nbclient.NotebookClient(notebook, timeout=3600, resources=where, record_timing=False)
    return client.execute(**kwargs)


def shown_by(notebook):
    """Return what a notebook printed, and the other things that it showed, each by the types that it has."""
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    return "".join("".join(output.get("text", "")) for output in outputs), [each.get("data", {}) for each in outputs]


def code_hash(notebook):
    """Return a hash of a notebook's code, to tell what it stores from what other code showed."""
    code = ("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")
    return hashlib.sha256("\n\n".join(code).encode()).hexdigest()[:16]


def without_traces(text, folder):
    """Return a text without what another machine, or another day, would print otherwise."""
    for path, instead in ((f"{folder.resolve()}/", ""), (f"{folder}/", ""), (sys.prefix, ".venv"), (f"{ROOT}/", "")):
        text = text.replace(path, instead)
    return re.sub(r"(?<=rank 0 at )\S+", "HOST:PORT", text)


def smaller(png):
    """Return a picture, base64 of a PNG that may be animated, in few colours."""
    picture = Image.open(io.BytesIO(base64.b64decode(png)))
    frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(picture)]
    sheet = Image.new("RGB", (picture.width, picture.height * len(frames)))
    for number, frame in enumerate(frames):
        sheet.paste(frame, (0, picture.height * number))
    palette = sheet.quantize(MOST_COLOURS, Image.Quantize.FASTOCTREE)
    first, *others = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    animated = {"save_all": True, "append_images": others, "duration": picture.info.get("duration"), "loop": 0}
    buffer = io.BytesIO()
    first.save(buffer, format="png", optimize=True, **(animated if others else {}))
    return base64.b64encode(buffer.getvalue()).decode()


def clean(notebook, folder):
    """Change the outputs of a notebook, which ran in a folder, to what is worth storing."""
    notebook["metadata"] |= {"language_info": {"name": "python"}, "ran": code_hash(notebook)}
    for cell in notebook["cells"]:
        cell["metadata"] = {}
        if cell["cell_type"] == "code":  # warnings of a notebook server and progress bars are not what the code shows
            cell["outputs"] = [output for output in cell["outputs"] if output.get("name") != "stderr"]
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "text" in output:
                output["text"] = without_traces(output["text"], folder)
            if "image/png" in data:
                data["image/png"] = smaller(data["image/png"])
                output["metadata"] = {}


def main():
    """Run the notebooks that are named, else all, and store them with their outputs."""
    import nbformat

    for name in sys.argv[1:] or NOTEBOOKS:
        with tempfile.TemporaryDirectory() as folder:
            notebook = run_notebook(name, Path(folder))
            clean(notebook, Path(folder))
        nbformat.write(notebook, EXAMPLES / f"{name}.ipynb")


if __name__ == "__main__":
    main()
