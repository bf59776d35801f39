"""Rows and tables of the studies that pretrain many models."""

import math
import re
from dataclasses import replace

import pytest

from matey.config import load_config
from matey.studies.pretraining.cases import Case
from matey.studies.pretraining.costs import samples_per_second
from matey.studies.pretraining.rows import equal_error_text, errors_of, exponents, growth_text, study_table
from matey.studies.pretraining.table import Point
from matey.studies.pretraining.tables import STUDIES
from tests.support.paths import ROOT
from tests.support.study_rows import TABLE, grown


def test_the_error_of_a_seed_is_the_geometric_mean_over_the_systems(rows):
    own = [row for row in rows if row["case"] == "vit-uniform-16"]
    assert len(own) == 2 * 2 * 2
    assert errors_of(own, "lead 1") == pytest.approx({0: 2 * 0.02 / 0.5, 1: 4 * 0.02 / 0.5})


def test_the_table_has_means_and_deviations(rows):
    lines = study_table(rows, TABLE).splitlines()
    assert lines[0].split()[-5:] == ["lead", "1", "lead", "5", "seeds"] and lines[2].split()[-1] == "2"
    uniform = next(line for line in lines if line.startswith("vit uniform, 8")).split("  ")
    error, deviation = 0.06, math.sqrt(2) * 0.02
    assert f"{error:.3f} ± {deviation:.3f}" in [cell.strip() for cell in uniform]


def test_the_training_time_is_that_of_all_steps(rows):
    times = {row["training_seconds"] for row in rows if row["case"] == "vit-uniform-16"}
    assert sorted(times) == pytest.approx([5, 6])


def test_less_than_a_sample_a_second_is_not_rounded_to_none(rows):
    assert "0.182/s" in study_table([{**row, "samples_per_second": 0.1824} for row in rows], TABLE)


def test_each_forecast_and_the_step_stand_over_those_of_a_reference_with_deviations(rows):
    """The second seed has twice the error of the first, with every model: quotients are of each seed, and so alike."""
    over_16, over_8 = (text for text in study_table(rows, TABLE).split("\n\n") if text.startswith("over "))
    head, _, *lines = over_16.splitlines()
    titles = ["lead 1", "lead 5", "step", "training", "forecast", "of 16", "memory"]
    assert re.split("  +", head) == ["over vit uniform, 16", *titles]
    costs = ["3.75 ± 0.35", "3.75 ± 0.35", "2.00 ± 0.00", "1.00 ± 0.00", "1.00 ± 0.00"]
    assert [re.split("  +", line) for line in lines] == [
        ["vit uniform, 8", "0.50 ± 0.00", "0.50 ± 0.00", *costs],
        ["vit mix 16 to 8, 0.2", "0.50 ± 0.00", "0.50 ± 0.00", *costs],
    ]
    coarse = "vit uniform, 16  2.00 ± 0.00  2.00 ± 0.00  0.27 ± 0.03  0.27 ± 0.03  0.50 ± 0.00"
    assert coarse in re.sub("  +", "  ", over_8)


def test_a_quotient_is_of_the_seeds_that_both_models_have(rows):
    """Otherwise one seed more of either would change it, though no model has changed."""
    fewer = [row for row in rows if row["case"] != "vit-uniform-16" or row["seed"] == 0]
    text = next(text for text in study_table(fewer, TABLE).split("\n\n") if text.startswith("over vit uniform, 16"))
    assert re.split("  +", text.splitlines()[2])[:4] == ["vit uniform, 8", "0.50", "0.50", "4.00"]


def test_models_are_compared_where_they_are_scored_on_the_same_windows(rows):
    """A longer history begins later, where persistence has another error."""
    longer = [
        row | {"case": f"long-{row['case']}", "series": f"{row['series']} long"} | {"persistence_nrmse": 0.45}
        for row in rows
    ]
    table = replace(TABLE, references=("vit-uniform-16", "long-vit-uniform-16"))
    texts = study_table([*rows, *longer], table).split("\n\n")
    for start in ("over ", "gain on persistence over that of "):
        heads = [text.splitlines() for text in texts if text.startswith(start)]
        assert len(heads) == 2
        assert all(("long" in head) == ("long" in line) for head, _, *lines in heads for line in lines)
    (equal,) = (text.splitlines()[2:] for text in texts if text.startswith("training time at equal error"))
    assert len(equal) == 1 and "long" not in equal[0]


def test_adaptive_tokens_are_compared_with_uniform_ones_of_their_own_scheme(rows):
    both = [*rows, *(row | {name: row[name].replace("vit", "svit") for name in ("series", "case")} for row in rows)]
    cases = (*TABLE.cases, *(replace(c, series=f"s{c.series}", settings=(*c.settings, "s")) for c in TABLE.cases))
    table = replace(TABLE, cases=cases, references=("vit-uniform-16", "svit-uniform-16"))
    texts = study_table(both, table).split("\n\n")
    for start in ("over ", "gain on persistence over that of "):
        heads = [text for text in texts if re.match(f"{start}s?vit", text)]
        lines = [[line.split()[0] for line in text.splitlines()[2:]] for text in heads]
        assert lines == [["vit", "vit"], ["svit", "svit"]]
    (equal,) = (text.splitlines()[2:] for text in texts if text.startswith("training time at equal error"))
    assert [line.split()[:5] for line in equal] == [
        [*f"{scheme} uniform, 16".split(), scheme, "mix"] for scheme in ("vit", "svit")
    ]
    everything = study_table(both, replace(table, of_one_scheme=False))
    assert "over svit uniform, 16" in everything and len(everything.splitlines()) > len("\n\n".join(texts).splitlines())


def test_a_control_of_a_budget_is_not_set_beside_patches_of_as_many_cells(rows):
    by_random = [row | {"case": "random-16", "series": "vit mix by random"} for row in rows if row["label"] == "16"]
    by_variance = [row | {"case": "variance-16", "series": "vit mix by variance"} for row in by_random]
    table = replace(TABLE, references=(), controls=("random-16",))
    over = next(
        text for text in study_table([*rows, *by_variance, *by_random], table).split("\n\n") if "over vit" in text
    )
    assert [line.split(",")[0] for line in over.splitlines()[2:]] == ["vit mix by variance"]


def test_gains_on_persistence_stand_over_a_references_where_both_have_one(rows):
    """Near persistence errors are alike and gains are not; that of a model behind it is negative."""

    def over_16(rows):
        (text,) = (
            t
            for t in study_table(rows, TABLE).split("\n\n")
            if t.startswith("gain on persistence over that of vit uniform, 16")
        )
        return [re.split("  +", line) for line in text.splitlines()[2:]]

    assert over_16(rows)[0] == ["vit uniform, 8", "1.07 ± 0.04", "2.17 ± 1.18"]
    worse = [{**row, "ratio": row["ratio"] * (10 if row["label"] == "8" else 1)} for row in rows]
    assert [line[1:] for line in over_16(worse)] == [["0.45 ± 0.29", "-8.33 ± 9.43"], ["1.07 ± 0.04", "2.17 ± 1.18"]]
    blown_up = [{**row, "ratio": math.inf if row["label"] == "8" and row["seed"] else row["ratio"]} for row in rows]
    assert over_16(blown_up)[0][1:] == ["diverged", "diverged"]


def test_a_control_is_compared_with_cases_of_its_label_only(rows):
    grown = [{**row, "label": "64" if row["label"] == "16" else "128"} for row in rows]
    texts = study_table(grown, replace(TABLE, references=(), controls=TABLE.references)).split("\n\n")
    (over,) = (text.splitlines() for text in texts if text.startswith("over "))
    assert over[0].startswith("over vit uniform, 128") and [line.split(",")[0] for line in over[2:]] == [
        "vit mix 16 to 8"
    ]


def test_training_times_at_equal_error_are_read_between_the_points_of_a_line():
    """Errors that fall as the root of the time: half the error takes four times as long."""
    points = [("uniform", "8", 8.0, 0.2), ("mix", "b", 4.0, 0.1), ("mix", "a", 0.25, 0.4), ("mul", "a", 2.0, 0.3)]
    *_, mix, mul = equal_errors(points)
    assert mix.split() == ["uniform,", "8", "mix", "0.12"] and mul.split() == ["mul", ">", "0.25"]


def equal_errors(points, steps=()):
    """Lines of the table of training times over the first point's; points are ``series, label, time, error, seed``."""
    same = {"forecast": "lead 1", "system": "gas", "persistence_nrmse": 0.5}
    names = ("series", "label", "training_seconds", "ratio", "seed")
    rows = [same | dict(zip(names, (*point, 0), strict=False)) | {"case": Case(*point[:2]).name} for point in points]
    settings = {name: f"train.steps={name.split()[1]}" for name in steps}
    series = {(row["series"], row["label"]) for row in rows}
    cases = [
        Case(s, label, (settings[f"{s} {label}"],) if f"{s} {label}" in settings else (f"a={s}", f"b={label}"))
        for s, label in series
    ]
    table = replace(TABLE, of_one_scheme=False, cases=tuple(cases))
    return equal_error_text(rows, [rows[0]["case"]], ["lead 1"], table).splitlines()


def test_training_times_at_equal_error_are_read_for_each_seed():
    """The seeds need a quarter and a half of the reference's time, which is another for each."""
    points = [("uniform", "8", 8.0, 0.2, 0), ("uniform", "8", 16.0, 0.2, 1)]
    points += [
        ("mix", "a", 1.0, 0.4, 0),
        ("mix", "b", 4.0, 0.1, 0),
        ("mix", "a", 4.0, 0.4, 1),
        ("mix", "b", 16.0, 0.1, 1),
    ]
    assert equal_errors(points)[-1].split() == ["uniform,", "8", "mix", "0.38", "±", "0.18"]
    beyond = [("mix", "b", 16.0, 0.3, 1) if point == ("mix", "b", 16.0, 0.1, 1) else point for point in points]
    assert equal_errors(beyond)[-1].split() == ["uniform,", "8", "mix", "0.83"]  # in the means
    assert equal_errors(points[:-1])[-1].split() == ["uniform,", "8", "mix", "0.25"]  # of the seed that has all


def test_a_model_trained_for_other_numbers_of_steps_is_read_as_one_line():
    points = [("uniform", "8", 8.0, 0.2), ("coarse", "100", 1.0, 0.4), ("coarse longer", "400", 4.0, 0.1)]
    assert [line.split() for line in equal_errors(points, ("coarse 100", "coarse longer 400"))[2:]] == [
        ["uniform,", "8", "coarse", "0.25"]
    ]
    assert [line.split()[-2:] for line in equal_errors(points)[2:]] == [[">", "0.12"], ["<", "0.50"]]


def test_where_resolutions_differ_errors_are_not_set_equal(rows):
    assert "at equal error" in study_table(rows, TABLE)
    grown = [{**row, "label": "64" if row["label"] == "16" else "128"} for row in rows]
    assert "at equal error" not in study_table(grown, replace(TABLE, labels_grow=True))


def test_the_step_of_several_ranks_takes_the_samples_of_all_groups():
    run = load_config(ROOT / TABLE.config, ["parallel.sequence_parallel_size=2", "train.accumulation=3"])
    assert [samples_per_second(run, ranks, 2.0) for ranks in (2, 4)] == [12, 24]


def test_a_cost_of_the_square_of_the_labels_has_the_exponent_two():
    lines = growth_text(grown(seeds=1)).split("\n\n")[0].splitlines()[2:]
    assert [re.split("  +", line.strip())[:-5] for line in lines] == [
        ["a", "64 to 256", "2.000"],
        ["128 to 256", "2.000"],
        ["b", "64 to 256", "0.500"],
    ]


def test_exponents_have_deviations_over_the_seeds():
    """The second seed grows with a power that is larger by one half."""
    line = growth_text(grown(seeds=2)).splitlines()[2]
    assert re.split("  +", line)[:3] == ["a", "64 to 256", "2.250 ± 0.354"]


def test_exponents_stand_over_those_of_the_first_line_along_the_same_cells():
    """The second seed's powers are larger by one half: 0.5 over 2 and 1 over 2.5."""
    over = growth_text(grown(seeds=2)).split("\n\n")[1].splitlines()
    assert over[0].startswith("exponent over that of a ")
    assert [re.split("  +", line)[:3] for line in over[2:]] == [["b", "64 to 256", "0.33 ± 0.11"]]


def test_a_seed_without_all_cells_of_a_line_has_no_exponent():
    """Otherwise a study that is half done would mix exponents of different cells."""
    rows = [row for row in grown(seeds=2) if not (row["seed"] == 1 and row["label"] == "256")]
    assert exponents([row for row in rows if row["series"] == "a"], "tokens") == {0: pytest.approx(2)}
    shorter = growth_text([row for row in grown(seeds=1) if (row["series"], row["label"]) != ("b", "256")])
    assert "exponent over that" not in shorter


def test_steps_of_different_numbers_of_samples_are_told(rows):
    """As on other numbers of ranks: means of seeds are of no model then, and quotients compare unlike trainings."""
    alike = [{**row, "samples_per_second": 8 / row["step_seconds"]} for row in rows]
    assert "Samples a step" not in study_table(alike, TABLE)
    mixed = [{**row, "samples_per_second": (8 + 56 * row["seed"]) / row["step_seconds"]} for row in rows]
    mixed = [row if row["label"] == "8" else other for row, other in zip(mixed, alike, strict=True)]
    lines = study_table(mixed, TABLE).splitlines()
    place = next(
        number for number, line in enumerate(lines) if line.startswith("Samples a step, which are not the same")
    )
    assert lines[place + 1].startswith("8: ") and lines[place + 2] == "64: vit uniform, 8"


def test_messages_of_a_step_are_told_where_they_were_counted(rows):
    assert "messages" not in study_table(rows, TABLE)
    counted = [{**row, "message_calls": 12.0, "message_bytes": 2.0**21, "forward_seconds": 0.5} for row in rows]
    assert "12  2.0" in study_table(counted, TABLE)


def test_a_point_has_a_name_that_a_folder_can_have():
    for study in STUDIES.values():
        for table in study().tables.values():
            assert not any(set(Point(case, 0).name) & set(" ,/;*?[]") for case in table.cases)
