import re
from base64 import b64decode
from html.parser import HTMLParser
from io import BytesIO

import pytest
from PIL import Image

from matey.checkpoints.trained import Trained
from matey.evaluate.evaluation import Protocol
from matey.evaluate.held_out import HeldOut
from matey.report.evaluation import describe, error_text, forecast_text, write_report

LOG = [
    {"step": step, "loss": 1 / step, "loss_by_system": {"shallow_water": 1 / step}, "num_tokens": 64, "seconds": 0.5}
    for step in (1, 2, 3)
]


class Reader(HTMLParser):
    """Collects what a page says and what it refers to, and checks that every element is closed."""

    VOID = ("meta", "img", "br")

    def __init__(self, text):
        super().__init__()
        self.open, self.words, self.sources, self.tags = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href", "srcset", "data", "action")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip() and self.open[-1] != "style":
            self.words.append(data.strip())


@pytest.fixture(scope="module")
def report(evaluation, model, held_out, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    about = describe(Trained("a & b", model, log=LOG), held_out, Protocol(), "2026-01-02", "python evaluate.py <here>")
    write_report(path, evaluation, about)
    return path.read_text(encoding="utf-8")


@pytest.mark.whole
def test_the_report_needs_no_other_file_and_no_network(report):
    reader = Reader(report)
    assert reader.sources
    assert all(re.match(r"data:image/(png|gif);base64,|#part-\d+$", source) for source in reader.sources)
    assert report.count('href="#part-') == report.count('<h2 id="part-') == report.count("<h2") > 5
    assert not {"script", "link", "iframe", "object"} & set(reader.tags)
    assert not re.search(r"https?://|url\(|@import", report)


@pytest.mark.whole
def test_films_show_the_rollout_of_the_worst_trajectory_step_by_step(report, evaluation):
    films = [Image.open(BytesIO(b64decode(text))) for text in re.findall(r"data:image/gif;base64,([^\"]+)", report)]
    assert [film.n_frames for film in films] == [len(rollout.views) for rollout in evaluation.shown_rollouts] == [4, 4]
    assert [view.step for view in evaluation.shown_rollouts[0].views] == [1, 2, 3, 4]
    assert [rollout.trajectory for rollout in evaluation.shown_rollouts] == [
        example.trajectory for example in evaluation.worst
    ]


@pytest.mark.whole
def test_the_report_holds_every_record(report, evaluation):
    cells = "|".join(Reader(report).words)
    for record in evaluation.records:
        row = [record.system, record.field, forecast_text(record), error_text(record.vrmse)]
        assert "|".join(row) in cells


@pytest.mark.whole
def test_what_others_named_is_text_and_not_markup(report):
    words = Reader(report).words
    assert "a & b" in words
    assert "python evaluate.py <here>" in words


@pytest.mark.whole
def test_a_page_that_is_passed_on_names_no_folder_above_the_working_one(report, held_out, monkeypatch, model):
    folder = held_out.sets[0].sources[0].parent
    assert str(folder) not in report
    monkeypatch.chdir(folder.parent)
    facts = dict(describe(Trained("x", model), HeldOut(held_out.sets[:1], ((0,),), 2), Protocol(), "", "").facts)
    assert facts["data"].endswith(f"; {folder.name}/{held_out.sets[0].sources[0].name}")
