"""Slurm's lists of nodes and counts of tasks, read as it writes them."""

import pytest

from matey.config import ConfigError
from matey.parallel.slurm import expand_counts, expand_node_list


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("login1", ["login1"]),
        ("frontier[00001-00003,00100]", ["frontier00001", "frontier00002", "frontier00003", "frontier00100"]),
        ("a[08-11],b2,c[7]", ["a08", "a09", "a10", "a11", "b2", "c7"]),
        ("rack[1-2]node[01-02]-ib", ["rack1node01-ib", "rack1node02-ib", "rack2node01-ib", "rack2node02-ib"]),
    ],
)
def test_node_lists_of_slurm_expand(text, names):
    assert expand_node_list(text) == names


def test_tasks_per_node_expand():
    assert expand_counts("8(x91),4") == [8] * 91 + [4]
    with pytest.raises(ConfigError, match=r"tasks per node '8x91' is not like '8\(x91\),4'"):
        expand_counts("8x91")


@pytest.mark.parametrize("text", ["", "frontier[1-", "frontier[a-b]"])
def test_a_broken_node_list_is_quoted(text):
    with pytest.raises(ConfigError, match="node list"):
        expand_node_list(text)
