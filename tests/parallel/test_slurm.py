"""Slurm's lists of nodes and counts of tasks, read as it writes them."""

import pytest

from matey.config import ConfigError
from matey.parallel.launchers import expand_counts, first_node


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("login1", "login1"),
        ("frontier[00001-00003,00100]", "frontier00001"),
        ("a[08-11],b2,c[7]", "a08"),
        ("b2,c[7]", "b2"),
        ("c[7],d", "c7"),
        ("rack[1-2]node[01-02]-ib", "rack1node01-ib"),
    ],
)
def test_the_first_node_of_slurms_list_is_named(text, name):
    assert first_node(text) == name


def test_tasks_per_node_expand():
    assert expand_counts("8(x91),4") == [8] * 91 + [4]
    with pytest.raises(ConfigError, match=r"tasks per node '8x91' is not like '8\(x91\),4'"):
        expand_counts("8x91")


@pytest.mark.parametrize("text", ["", "frontier[1-", "frontier[a-b]", "[],a", ",a"])
def test_a_broken_node_list_is_quoted(text):
    with pytest.raises(ConfigError, match="node list"):
        first_node(text)
