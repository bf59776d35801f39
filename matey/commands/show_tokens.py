"""Draws the mesh of a tokenizer over a field, for tools/show_tokens.py."""

from __future__ import annotations

from pathlib import Path

from matey.config import RunConfig
from matey.data import TrajectorySet
from matey.data.windows import num_starts
from matey.evaluate.forecaster import Example, make_examples
from matey.evaluate.held_out import HeldOut
from matey.mistakes import writing
from matey.model.configuration import model_config
from matey.model.matey import MateyModel
from matey.report.pictures import write_png
from matey.report.plots import mesh_figure
from matey.text_table import text_table
from matey.train.network import check_fit, with_vocabulary


def main(data: TrajectorySet, run: RunConfig, trajectory: int, out: Path) -> int:
    """Draw and count the tokens of three windows of a trajectory, as the run cuts it; return 0."""
    with writing(out):
        examples = choose(data, run, trajectory)
        write_png(mesh_figure(examples), out)
    print(count(examples))
    return 0


def choose(data: TrajectorySet, run: RunConfig, trajectory: int) -> list[Example]:
    """Tokenize three windows of a trajectory as the run would."""
    # Refinement depends on the data's fields alone.
    alone = {"fields": None, "given": (), "parameters": ()}
    run = with_vocabulary(run.model_copy(update={"model": run.model.model_copy(update=alone)}), [data])
    num_starts(data.trajectories[trajectory], run.data.history, follow=1)  # raises if the trajectory is too short
    check_fit(model_config(run), [data])
    # The mesh depends on the fields alone, so an untrained model chooses the same.
    model = MateyModel(model_config(run)).eval()
    return make_examples(model, HeldOut((data.with_given(()),), ((trajectory,),), run.data.history), lead=1)


def count(examples: list[Example]) -> str:
    """Return the table of tokens per level."""
    patches = [f"patch {'x'.join(map(str, patch))}" for patch in examples[0].patches]
    rows = []
    for example in examples:
        tokens = example.tokens_per_level
        share = f"{sum(tokens) / example.num_uniform_tokens:.0%}"
        rows.append([str(example.frame), *map(str, tokens), str(sum(tokens)), str(example.num_uniform_tokens), share])
    return text_table(["last frame", *patches, "tokens", "uniform", "share"], rows, num_text=0)
