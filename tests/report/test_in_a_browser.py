"""The report in a real browser: no complaint, every picture drawn, and no wider than a phone where it is one."""

import html
import json
import re
import shutil
import subprocess

import pytest

from matey.checkpoints.trained import Trained
from matey.evaluate.evaluation import Protocol
from matey.report.evaluation import describe, write_report

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync --enable-logging=stderr --virtual-time-budget=20000 --dump-dom""".split()
# The report in a frame of the width of a phone, and of a desk; what is found there becomes the page's own text.
AROUND = """<!DOCTYPE html><meta charset="utf-8">
<iframe id="phone" style="width:390px;height:800px;border:0" srcdoc="{page}"></iframe>
<iframe id="desk" style="width:1300px;height:800px;border:0" srcdoc="{page}"></iframe>
<pre id="found"></pre>
<script>
onload = () => {{
  const found = {{}};
  for (const name of ["phone", "desk"]) {{
    const page = document.getElementById(name).contentDocument;
    const images = [...page.images];
    found[name] = {{
      width: page.documentElement.clientWidth,
      needed: page.documentElement.scrollWidth,
      images: images.length,
      drawn: images.filter(image => image.complete && image.naturalWidth > 100).length,
      shown: Math.min(...images.map(image => image.getBoundingClientRect().width)),
    }};
  }}
  document.getElementById("found").textContent = JSON.stringify(found);
}};
</script>"""


@pytest.fixture(scope="module")
def found(evaluation, model, held_out, tmp_path_factory):
    """What a browser makes of a report, and what it complains of."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"needs a browser, one of {', '.join(BROWSERS)}: apt-get install chromium")
    folder = tmp_path_factory.mktemp("browser")
    log = [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}]
    about = describe(Trained("a run with a long name " * 4, model, log=log), held_out, Protocol(), "2026", "python x")
    write_report(folder / "report.html", evaluation, about)
    page = html.escape((folder / "report.html").read_text(encoding="utf-8"))
    (folder / "around.html").write_text(AROUND.format(page=page), encoding="utf-8")
    command = [browser, *FLAGS, f"--user-data-dir={folder / 'profile'}", f"file://{folder / 'around.html'}"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=240)
    (text,) = re.findall(r'<pre id="found">(.*?)</pre>', result.stdout)
    return json.loads(html.unescape(text)), [line for line in result.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.parametrize(("where", "width"), [("phone", 390), ("desk", 1300)])
def test_every_picture_is_drawn_and_nothing_is_wider_than_the_screen(found, where, width):
    page = found[0][where]
    assert width - 20 <= page["width"] <= width and page["needed"] == page["width"], page
    assert page["images"] == page["drawn"] == 2 + 2 * 5
    assert page["shown"] > 600, "a picture is never so small that its words cannot be read"


def test_the_browser_complains_of_nothing(found):
    assert found[1] == []
