"""Ports of this machine that a server of ours may listen on."""

import socket

from pipelines.usage import UsageError

HOST = "127.0.0.1"
PORTS = range(5000, 5100)


def port(wanted: int | None, command: str) -> int:
    """The port to listen on: the one that is wanted, else the first that is free.

    Args:
        command: what the message says to type with another one: `make ui ARGS=`.

    Raises:
        UsageError: it cannot be had.
    """
    free = next((number for number in PORTS if _free(number)), None)
    another = f"{command}port={free or 8080}"
    if wanted is None:
        if free is None:
            raise UsageError(
                f"port: none is free from {PORTS[0]} to {PORTS[-1]} on {HOST}; "
                f"name another: {another}"
            )
        return free
    if not 0 < wanted < 65536:
        raise UsageError(f"port: {wanted} is no port; name one from 1 to 65535: {another}")
    if not _free(wanted):
        raise UsageError(
            f"port: {wanted} on {HOST} cannot be had, another program may have it; "
            f"another: {another}"
        )
    return wanted


def _free(number: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, number))
        except OSError:
            return False
    return True
