"""Machine files."""

import pytest
import yaml

from matey.config import ConfigError
from matey.planning.machine import load_machine, machine_names


def test_the_machines_that_come_with_the_package_load():
    assert machine_names() == ["cpu", "dgx-h100", "frontier"]
    for name in machine_names():
        machine = load_machine(name)
        assert 0 < machine.rate("bfloat16") < machine.peak["bfloat16"]
    assert load_machine("frontier").nodes_of(736) == 92


def test_ranks_share_the_cores_of_a_cpu_and_no_more():
    cpu = load_machine("cpu")
    assert [cpu.nodes_of(ranks) for ranks in (1, 2, 4)] == [1, 1, 1]
    assert [cpu.devices_of_rank(ranks) for ranks in (1, 2, 4)] == [2, 1, 0.5]
    assert load_machine("frontier").devices_of_rank(4) == 1


def test_a_machine_of_ones_own_is_a_file(tmp_path):
    tree = load_machine("cpu").model_dump() | {"name": "mine", "num_nodes": 4, "shared_devices": False}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(tree))
    assert load_machine(path).nodes_of(7) == 4
    path.write_text(yaml.safe_dump(tree | {"latncy": 1}))
    with pytest.raises(ConfigError, match=r"mine.yaml: unknown key 'latncy'"):
        load_machine(path)
    path.write_text(yaml.safe_dump(tree | {"peak": {"float32": 1e12}}))
    with pytest.raises(ConfigError, match="each give a number for float32 and for bfloat16"):
        load_machine(path)
