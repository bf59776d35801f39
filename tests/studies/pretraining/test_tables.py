"""The tables of the studies that pretrain many models."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from matey.config.choices import CRITERIA
from matey.model.configuration import model_config
from matey.studies.folder import StudyError, claim
from matey.studies.pretraining.cases import resolution_cases
from matey.studies.pretraining.running import PretrainingStudy
from matey.studies.pretraining.table import Point
from matey.studies.pretraining.tables import STUDIES
from matey.studies.simulated import THERMALS, Simulated
from matey.tokens.refinement import check_window
from tests.support.laws import law
from tests.support.paths import ROOT

TABLES = [(name, scale) for name, study in STUDIES.items() for scale in study().tables]
SMALLEST = [(name, next(iter(study().tables))) for name, study in STUDIES.items()]


@law(("name", "scale"), TABLES, quick=SMALLEST)
def test_every_point_is_a_run_of_its_own_that_the_schema_accepts(name, scale):
    table = STUDIES[name]().tables[scale]
    points = table.points()
    assert len({point.name for point in points}) == len(points) == table.seeds * len(table.cases)
    assert {point.case.name for point in points} >= {*table.references, *table.controls}
    runner = PretrainingStudy(ROOT, Path("out"), table, settings=("train.micro_batch=3",))
    stated = set()
    for point in points:
        run = runner.run_config(point)
        assert (run.train.seed, run.train.micro_batch) == (point.seed, 3)
        assert len(run.data.sets) == len(table.data_of(point.case)) or not table.data_of(point.case)
        sections = (run.model, run.tokens, run.data)
        stated.add((run.train.steps, *(section.model_dump_json() for section in sections)))
    assert len(stated) == len(table.cases)


def test_what_the_user_states_wins():
    table = STUDIES["adaptivity"]().tables["tiny"]
    runner = PretrainingStudy(ROOT, Path("out"), table, settings=("train.steps=7", "model.channels=8"))
    run = runner.run_config(Point(table.cases[0], 1))
    assert (run.train.steps, run.model.channels) == (7, 8)
    assert run.output.dir == str(Path("out/points") / "vit-uniform-16-seed1")


def test_criteria_are_compared_at_equal_numbers_of_tokens_uniform_16s_among_them():
    for scale, budgets in (("small", {32}), ("laptop", {23, 32, 68})):
        table = STUDIES["adaptivity"]().tables[scale]
        (data,) = table.data
        runner = PretrainingStudy(ROOT, Path("out"), table)
        tokens = [runner.run_config(Point(case, 0)).tokens for case in table.cases if " by " in case.series]
        assert {each.rule for each in tokens} == {"budget"} and {"variance", "random"} <= {e.criterion for e in tokens}
        assert scale == "small" or {each.criterion for each in tokens} == set(CRITERIA.own)
        assert {each.refine for each in tokens} == budgets and len({each.patches for each in tokens}) == 1
        _, y, x = data.grid
        assert y * x // 16**2 in budgets and all((budget - y * x // 32**2) % 3 == 0 for budget in budgets)


@law(("name", "scale"), TABLES, quick=SMALLEST)
def test_schemes_that_attend_along_time_find_more_than_one_token_there(name, scale):
    table = STUDIES[name]().tables[scale]
    runner = PretrainingStudy(ROOT, Path("out"), table)
    for run in (runner.run_config(Point(case, 0)) for case in table.cases):
        if run.model.scheme != "vit":
            assert all(run.data.history // frames > 1 for frames, *_ in run.tokens.patches)


def test_the_schemes_are_compared_at_three_sizes_with_the_same_learning_rates():
    table = STUDIES["schemes"]().tables["laptop"]
    runner = PretrainingStudy(ROOT, Path("out"), table)
    runs = [runner.run_config(point) for point in table.points(1)]
    assert {run.model.size for run in runs} == {"micro", "mini", "Ti"}
    assert {(run.train.learning_rate, run.train.muon.learning_rate) for run in runs} == {(4e-3, 1e-2)}
    assert len(runs) == 9 and {run.model.scheme for run in runs} == {"vit", "svit", "avit"}
    assert {(run.tokens.set, run.tokens.patches) for run in runs} == {("uniform", ((1, 1, 8, 8),))}


@pytest.mark.parametrize(("scale", "size"), [("tiny", "micro"), ("laptop", "Ti")])
def test_on_a_fine_grid_patches_have_one_frame_and_budgets_can_be_spent(scale, size):
    table = STUDIES["fine_grid"]().tables[scale]
    runner = PretrainingStudy(ROOT, Path("out"), table, settings=("model.fields=[density]",))
    (data,) = table.data
    for case in table.cases:
        run = runner.run_config(Point(case, 0))
        assert run.model.size == size and {patch[0] for patch in run.tokens.patches} == {1}
        network = model_config(run)
        check_window((run.data.history, *data.grid), network.patches, network.refinement)


def test_on_a_fine_grid_adaptive_tokens_make_a_line_with_controls_at_one_point():
    cases = [case for case in STUDIES["fine_grid"]().tables["laptop"].cases if " by " in case.series]
    budgets = {c.series: [each.label for each in cases if each.series == c.series] for c in cases}
    assert budgets == {
        "vit mix by variance": ["100", "130", "256"],  # fewer than uniform 16, and as many
        "vit mix by second_difference": ["130"],
        "vit mix by random": ["130"],
        "vit mix 32 to 16 by variance": ["130", "130 for 500 steps"],  # one line over the training time
    }


def test_on_a_fine_grid_uniform_patches_have_as_much_training_time_as_adaptive_ones():
    cases = {case.name: case for case in STUDIES["fine_grid"]().tables["laptop"].cases}
    for size, steps in ((32, 600), (16, 360)):
        longer, shorter = cases[f"vit-uniform-{size}-for-{steps}-steps"], cases[f"vit-uniform-{size}"]
        assert {*longer.settings} - {*shorter.settings} == {f"train.steps={steps}"}


def test_a_folder_goes_on_with_the_data_and_settings_that_it_was_begun_with(tmp_path):
    table = STUDIES["fine_grid"]().tables["laptop"]

    def take(table):
        runner = PretrainingStudy(ROOT, tmp_path, table)
        claim(tmp_path, runner.facts, runner.growing)
        (tmp_path / "points" / "begun").mkdir(parents=True, exist_ok=True)

    take(table)
    take(table)
    first = replace(table.cases[0], settings=(*table.cases[0].settings, "train.learning_rate=1"))
    others: list[dict[str, Any]] = [{"settings": ("train.steps=7",)}, {"data": (Simulated(THERMALS, 64, 3, 13),)}]
    others += [{"max_windows": 1}, {"cases": (first, *table.cases[1:])}]
    for other in (replace(table, **changes) for changes in others):
        with pytest.raises(StudyError, match="choose another --out"):
            take(other)


def test_models_and_resolutions_can_be_added_to_a_folder_where_others_stay(tmp_path):
    table = STUDIES["scaling_of_tokens"]().tables["laptop"]

    def take(*cases):
        runner = PretrainingStudy(ROOT, tmp_path, replace(table, cases=cases))
        claim(tmp_path, runner.facts, runner.growing)
        (tmp_path / "points" / "begun").mkdir(parents=True, exist_ok=True)
        return json.loads((tmp_path / "study.json").read_text())

    before, all_of_it, again = take(*table.cases[:3]), take(*table.cases), take(*table.cases[:3])
    assert before["data"] == {"colliding_thermals-64": "12 of 31 frames"} and len(before["models"]) == 3
    assert len(all_of_it["data"]) == 4 and len(all_of_it["models"]) == 12 and again == all_of_it
    with pytest.raises(StudyError) as refused:
        take(replace(table.cases[-1], settings=()))
    assert str(refused.value).count(table.cases[-1].name) == 2 and table.cases[0].name not in str(refused.value)


def test_data_of_points_that_are_done_are_not_simulated_anew(tmp_path, monkeypatch):
    """So that a folder of results alone can be drawn, and added to, on another machine."""
    table = STUDIES["scaling_of_tokens"]().tables["laptop"]
    runner, made = PretrainingStudy(ROOT, tmp_path, table, table.points(1)), []
    monkeypatch.setattr("matey.studies.pretraining.running.simulate", lambda data, *_: made.append(data.resolution))
    for point in runner.points[:6]:
        runner.folder(point).mkdir(parents=True)
        runner.finish(point, {})
    runner.prepare([p for p in runner.points if not runner.is_done(p)])
    assert made == [256, 512]


def test_each_resolution_is_compared_with_uniform_patches_of_its_own():
    table = STUDIES["scaling_of_tokens"]().tables["laptop"]
    assert table.controls == tuple(f"uniform-8-{cells}" for cells in (64, 128, 256, 512))
    assert not table.references and table.labels_grow


@pytest.mark.parametrize(("name", "budgets"), [("adaptivity", (23, 32, 68)), ("fine_grid", (130,))])
def test_criteria_are_compared_with_random_splits_of_as_many_tokens(name, budgets):
    table = STUDIES[name]().tables["laptop"]
    assert table.controls == tuple(f"vit-mix-by-random-{budget}" for budget in budgets)


def test_schemes_are_compared_with_avit_of_each_size():
    tables = STUDIES["schemes"]().tables
    assert tables["laptop"].references == ("avit-micro", "avit-mini", "avit-Ti")
    assert tables["paper"].references == ("avit-Ti", "avit-S", "avit-B")


def test_each_scheme_has_adaptive_tokens_of_both_sets_beside_its_own_uniform_ones():
    table = STUDIES["adaptivity"]().tables["laptop"]
    for scheme in ("vit", "svit", "avit"):
        labels: dict[str, list[str]] = {}
        for case in table.cases:
            labels.setdefault(case.series, []).append(case.label)
        assert {"32", "16", "8"} <= {*labels[f"{scheme} uniform"]}
        assert {"0.1", "0.4"} <= {*labels[f"{scheme} mix 32 to 16 to 8"]} & {*labels[f"{scheme} mul 32 to 16 to 8"]}
        assert {f"{scheme}-uniform-16", f"{scheme}-uniform-8"} <= {*table.references}
    assert {*table.references} <= {case.name for case in table.cases} and len(table.references) == 8
    assert table.of_one_scheme and not STUDIES["schemes"]().tables["laptop"].of_one_scheme


def test_studies_side_by_side_share_what_they_simulate():
    """Twelve trajectories of 512 x 256 cells take half an hour of a core."""
    of = [
        {runner.data_folder(data) for case in table.cases for data in table.data_of(case)}
        for name in ("scaling_of_tokens", "long_sequences")
        for table in [STUDIES[name]().tables["laptop"]]
        for runner in [PretrainingStudy(ROOT, Path("runs/paper") / f"{name}-laptop", table)]
    ]
    assert of[1] == {Path("runs/paper/data/colliding_thermals-512-12x31")} and of[1] < of[0]


@pytest.mark.parametrize("name", STUDIES)
def test_scoring_a_model_takes_a_third_of_what_its_training_takes_at_most(name):
    """A step takes three forward passes of each sample; a study at `laptop` has three hours."""
    table = STUDIES[name]().tables["laptop"]
    for point in table.points(1):
        train = PretrainingStudy(ROOT, Path("out"), table).run_config(point).train
        passes = table.max_windows * len(table.data_of(point.case)) * 2 * (1 + table.rollout)
        assert passes <= train.steps * train.micro_batch


@law(("name", "scale"), TABLES, quick=SMALLEST)
def test_the_learning_rate_has_warmed_up_well_before_the_end(name, scale):
    table = STUDIES[name]().tables[scale]
    runner = PretrainingStudy(ROOT, Path("out"), table)
    assert all(2 * run.train.warmup_steps <= run.train.steps for run in map(runner.run_config, table.points(1)))


def test_the_longest_sequences_have_65536_tokens_on_four_ranks():
    table = STUDIES["long_sequences"]().tables["laptop"]
    (data,) = table.data
    _, y, x = data.grid
    runs = [PretrainingStudy(ROOT, Path("out"), table).run_config(point) for point in table.points(1)]
    tokens = [[run.data.history * (y // patch[2]) * (x // patch[3]) for patch in run.tokens.patches] for run in runs]
    assert tokens == [[1024], [4096], [16384], [65536], [1024, 65536]] and runs[-1].tokens.set == "mix"
    assert {run.parallel.sequence_parallel_size for run in runs} == {table.ranks} == {4}
    assert table.launcher.endswith("--nproc-per-node 4")


def test_sequences_grow_64_fold_on_the_five_systems_without_several_ranks_too():
    table = STUDIES["long_sequences"]().tables["small"]
    assert table.data == STUDIES["schemes"]().tables["laptop"].data and (table.ranks, table.launcher) == (1, "")
    runs = [PretrainingStudy(ROOT, Path("out"), table).run_config(point) for point in table.points()]
    tokens = [[run.data.history * (64 // y) * (64 // x) for _, _, y, x in run.tokens.patches] for run in runs]
    assert tokens == [[64], [256], [1024], [4096], [64, 4096], [64, 4096]]
    assert [run.tokens.refine for run in runs[-2:]] == [0.2, 0]


def test_resolutions_go_to_512_cells_of_structures_of_one_size():
    table = STUDIES["scaling_of_tokens"]().tables["laptop"]
    assert [data.resolution for case in table.cases for data in table.data_of(case)][::3] == [64, 128, 256, 512]


def test_coarse_patches_of_one_size_in_space_have_a_level_more_at_every_doubling():
    cases = {case.name: case for case in resolution_cases((64, 128, 256), 1, 1)}
    for cells, sizes in ((64, [16, 8]), (128, [32, 16, 8]), (256, [64, 32, 16, 8])):
        _, patches, *_ = cases[f"mix-a-quarter-of-the-width-to-8-{cells}"].settings
        assert patches == "tokens.patches=[" + ",".join(f"[2,1,{size},{size}]" for size in sizes) + "]"


def test_adaptive_and_uniform_tokens_differ_in_nothing_else():
    table = STUDIES["adaptivity"]().tables["laptop"]
    runner = PretrainingStudy(ROOT, Path("out"), table)
    rest: dict[int, set[str]] = {2: set(), 4: set()}
    for run in (runner.run_config(point) for point in table.points(1) if point.case.series.startswith("vit")):
        rest[run.data.history].add(run.model_copy(update={"tokens": None, "output": None}).model_dump_json())
        assert {frames for frames, *_ in run.tokens.patches} == {2 if run.data.history == 2 else 1}
    assert [len(each) for each in rest.values()] == [1, 1]
