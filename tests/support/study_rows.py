"""Rows of studies that pretrain many models, as their tables and figures take them."""

from matey.studies.pretraining.rows import GROWING
from matey.studies.pretraining.tables import STUDIES

TABLE = STUDIES["adaptivity"]().tables["tiny"]


def record(system, lead, nrmse, kind="lead"):
    known = {"system": system, "field": "all", "kind": kind, "lead": lead, "num_windows": 4, "seams": None}
    known |= {"extrapolation_nrmse": 0.5, "physics": {}}
    return known | {"nrmse": nrmse, "vrmse": nrmse, "persistence_nrmse": 0.5, "persistence_vrmse": 0.5}


def grown(seeds):
    """Rows of tokens that are powers of the cells: of one line the second, of one the root, of one a single point."""
    costs = dict.fromkeys((key for key, *_ in GROWING), 1.0) | {"ratio": 0.5}
    return [
        {"series": series, "label": str(cells), "forecast": forecast, "seed": seed, **costs}
        | {"tokens": factor * cells ** (power + seed / 2)}
        for seed in range(seeds)
        for series, factor, power, sizes in (("a", 3, 2, (64, 128, 256)), ("b", 5, 0.5, (64, 256)), ("c", 1, 1, (64,)))
        for cells in sizes
        for forecast in ("lead 1", "lead 5")
    ]
