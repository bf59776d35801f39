"""The first contact of the ranks: an address and a port that cannot work are named before anybody waits.

Slurm's lists of nodes and counts of tasks, read as it writes them.
"""

import socket
import sys

import pytest

from matey.config import ConfigError
from matey.parallel.launchers import check_address, check_port_is_free, expand_counts, first_node
from tests.support.programs import start


def test_an_unresolved_address_and_a_port_in_use_are_named_within_seconds():
    with pytest.raises(ConfigError, match="'no such host', cannot be resolved on .*; set MASTER_ADDR"):
        check_address("no such host")
    check_address("127.0.0.1")
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"Port {port} of .* is in use by another program; set MASTER_PORT"):
            check_port_is_free(port)
    check_port_is_free(port)


TAKEN_AFTER_THE_LOOK = """
import socket
from matey.parallel import environment
look, others = environment.check_port_is_free, []
def look_and_lose(port):
    look(port)
    others.append(socket.create_server(("", port)))
environment.check_port_is_free = lambda port: look(port) if others else look_and_lose(port)
environment.start_processes(environment.find_environment(), 60)
"""


def test_a_port_that_another_job_took_since_it_was_looked_at_is_named():
    result = start([sys.executable, "-c", TAKEN_AFTER_THE_LOOK], timeout=60)
    assert "is in use by another program; set MASTER_PORT" in result.stderr.splitlines()[-1], result.stderr


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
