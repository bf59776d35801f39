"""Checks the numbers and addresses that a launcher or a person set for the ranks' first contact, before torch uses them."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Mapping

from matey.config import ConfigError

LARGEST_PORT = 65_535
INTERFACE = "GLOO_SOCKET_IFNAME"  # read by gloo
# A name server that does not answer at once may be busy with the other ranks.
RESOLVE_SECONDS = 5.0


def whole_number(variables: Mapping[str, str], name: str, default: str | None = None) -> int:
    """Return the number in a variable; without a default, the variable must be set.

    Raises:
        ConfigError: the variable holds no whole number.
    """
    text = variables[name] if default is None else variables.get(name) or default
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{name} is {text!r}, not a whole number; correct or unset it.") from None


def check_numbers(rank: int, world_size: int, local_rank: int, local_world_size: int, port: int) -> None:
    """Raise ConfigError if a rank or a local rank is out of range, or a port number is impossible."""
    places = (
        ("rank (RANK)", rank, "WORLD_SIZE", world_size),
        ("local rank (LOCAL_RANK)", local_rank, "LOCAL_WORLD_SIZE", local_world_size),
    )
    for what, number, of, size in places:
        if not 0 <= number < size:
            raise ConfigError(
                f"The {what} is {number} and {of} is {size}, but ranks count from 0 to {of} - 1; correct what the launcher "
                "or the job script sets."
            )
    if not 0 < port <= LARGEST_PORT:
        raise ConfigError(
            f"MASTER_PORT is {port}, but ports lie between 1 and {LARGEST_PORT}; choose one, or unset it."
        )


def check_address(address: str) -> None:
    """Raise ConfigError if the name of rank 0's node cannot be resolved: torch would try it until its timeout."""
    deadline = time.monotonic() + RESOLVE_SECONDS
    while True:
        try:
            socket.getaddrinfo(address, None)
            return
        except (OSError, UnicodeError) as error:
            is_busy = isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN
            if not is_busy or time.monotonic() > deadline:
                raise ConfigError(
                    f"The address of rank 0, {address!r}, cannot be resolved on {socket.gethostname()} ({error}); set "
                    "MASTER_ADDR to a name or number at which every node reaches that of rank 0."
                ) from None
        time.sleep(0.5)


def check_interface(variables: Mapping[str, str]) -> None:
    """Raise ConfigError if gloo is told to use a network interface that this node does not have."""
    here = [name for _, name in socket.if_nameindex()]
    asked = variables.get(INTERFACE, "")
    if missing := [name for name in asked.split(",") if name and name not in here]:
        raise ConfigError(
            f"{INTERFACE} is {asked!r}, and {socket.gethostname()} has no interface {missing[0]!r}: it has {', '.join(here)}. "
            "Set it to one of these, or unset it."
        )


def check_port_is_free(port: int) -> None:
    """Raise ConfigError if rank 0 cannot listen on its port; only rank 0 must call."""
    with socket.socket() as listener:
        # As torch does: a port whose last connections are still winding down is free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("", port))
            listener.listen()
        except OSError as error:
            why = "in use by another program" if error.errno == errno.EADDRINUSE else f"refused ({error.strerror})"
            raise ConfigError(
                f"Port {port} of {socket.gethostname()}, on which rank 0 is to listen, is {why}; set MASTER_PORT to "
                "another one (torchrun: --master_port, or --standalone; deepspeed: --master_port)."
            ) from None
