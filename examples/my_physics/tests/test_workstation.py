from matey.planning.machine import load_machine


def test_the_machine_is_known_by_its_name():
    machine = load_machine("workstation")
    assert machine.nodes_of(4) == 1 and machine.rate("bfloat16") == 8e13
