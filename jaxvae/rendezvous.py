"""Processes of one job find each other over TCP before JAX is started.

JAX aborts a process with a C++ stack where a port is taken or another process is missing. So process 0 listens at the
address first, and every process says there which one it is. Then all of them start JAX, which uses the same address.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import sys
import time
from collections.abc import Container, Iterable

from jaxvae.errors import InputError

REACH_SECONDS = 6.0  # How long a process tries to reach process 0, which can start a little later.
TELL_SECONDS = 5.0  # After which process 0 says for whom it waits.
GATHER_SECONDS = 60.0  # How long process 0 waits for the others.
HELLO = "jaxvae {process}/{count}\n"
GO = "go\n"


def meet(address: str, process: int, count: int) -> None:
    """Return once all processes of the job have met.

    Args:
      address: HOST:PORT of process 0.
      process: the number of this process, from 0.
      count: number of processes.

    Raises:
      InputError: process 0 cannot be reached within `REACH_SECONDS`, its port is taken, a process does not come within
        `GATHER_SECONDS`, or the processes have different counts or equal numbers.
    """
    host, _, port = address.rpartition(":")
    if process > 0:
        with _reach(host.strip("[]"), int(port)) as connection:
            connection.sendall(HELLO.format(process=process, count=count).encode())
            _wait_for_go(connection, address)
        return
    with _listen(int(port)) as server, _reach(host.strip("[]"), int(port)) as own:
        # Process 0 calls itself too: its own call does not arrive if HOST is another machine.
        own.sendall(HELLO.format(process=0, count=count).encode())
        _gather(server, count)


def _listen(port: int) -> socket.socket:
    both = socket.has_dualstack_ipv6()
    try:
        return socket.create_server(
            ("", port), family=socket.AF_INET6 if both else socket.AF_INET, dualstack_ipv6=both, backlog=1024
        )
    except (OSError, OverflowError) as error:
        raise InputError(f"port {port} is not free ({_reason(error)}); give all processes another") from error


def _reach(host: str, port: int) -> socket.socket:
    """A connection to process 0, tried again while nobody answers."""
    end = time.monotonic() + REACH_SECONDS
    while True:
        try:
            return socket.create_connection((host, port), timeout=max(0.1, end - time.monotonic()))
        except (OSError, OverflowError, UnicodeError) as error:
            if time.monotonic() >= end or not isinstance(error, OSError):
                raise InputError(
                    f"nothing answers at {host}:{port} ({_reason(error)}); "
                    "start process 0 first, and give its address to all processes"
                ) from error
        time.sleep(0.2)


def _wait_for_go(connection: socket.socket, address: str) -> None:
    connection.settimeout(GATHER_SECONDS + REACH_SECONDS)
    try:
        answer = connection.makefile().readline(1000)
    except (OSError, UnicodeError) as error:
        answer = _reason(error)
    if answer != GO:
        raise InputError(f"process 0 at {address} does not go on ({answer.strip() or 'it has ended'})")


def _gather(server: socket.socket, count: int) -> None:
    """Accept the calls of all processes, then tell all of them to go on, or why not."""
    came: dict[int, socket.socket] = {}
    start, told = time.monotonic(), False
    try:
        while len(came) < count:
            missing = ", ".join(str(number) for number in range(count) if number not in came)
            server.settimeout(max(0.1, start + (GATHER_SECONDS if told else TELL_SECONDS) - time.monotonic()))
            try:
                connection, _ = server.accept()
            except TimeoutError:
                if told:
                    raise InputError(f"process {missing} of {count} did not come in {GATHER_SECONDS:.0f} s") from None
                print(f"process 0 of {count} waits for process {missing}", file=sys.stderr, flush=True)
                told = True
                continue
            number = _introduced(connection, count, came)
            if number is not None:
                came[number] = connection
        _tell(came.values(), GO)
    except InputError as error:
        _tell(came.values(), f"{error}\n")
        raise
    finally:
        for connection in came.values():
            connection.close()


def _introduced(connection: socket.socket, count: int, came: Container[int]) -> int | None:
    """The number of the process that calls. None for other programs, such as a scan of ports, which are sent away."""
    connection.settimeout(1)
    try:
        hello = connection.makefile().readline(100)
    except (OSError, UnicodeError):
        hello = ""
    found = re.fullmatch(r"jaxvae (\d+)/(\d+)\n", hello)
    if not found:
        connection.close()
        return None
    number, of, problem = int(found[1]), int(found[2]), ""
    if of != count:
        problem = f"process {number} is one of {of}, and process 0 one of {count}; give all the same"
    elif number in came:
        problem = f"two processes have the number {number}; number them from 0 to {count - 1}"
    if problem:
        _tell([connection], f"{problem}\n")
        raise InputError(problem)
    return number


def _tell(connections: Iterable[socket.socket], line: str) -> None:
    """Send a line to processes and hang up."""
    for connection in connections:
        with connection, contextlib.suppress(OSError):  # It has ended meanwhile, which JAX notices.
            connection.sendall(line.encode())


def _reason(error: BaseException) -> str:
    number = getattr(error, "errno", None)
    if isinstance(number, int) and number in errno.errorcode and not isinstance(error, socket.gaierror):
        return os.strerror(number)  # Python adds the address to its own text.
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
