"""The processes of one job find each other over TCP before JAX is started.

JAX aborts a process with a C++ stack if a port is taken or another process is missing. So process 0 listens at the
address first, and every process sends it its number. Then all processes start JAX, which uses the same address.
"""

import contextlib
import errno
import os
import re
import socket
import sys
import time
from collections.abc import Container, Iterable

from jaxvae.errors import InputError

REACH_SECONDS = 6.0  # in which a process tries to reach process 0, which can start a little later
TELL_SECONDS = 5.0  # after which process 0 prints the processes it waits for
GATHER_SECONDS = 60.0  # in which process 0 waits for the others
HELLO = "jaxvae {process}/{count}\n"
GO = "go\n"


def meet(address: str, process: int, count: int) -> None:
    """Wait for all processes of the job.

    Args:
      address: HOST:PORT of process 0.
      process, count: the number of this process, from 0, and the number of processes.

    Raises:
      InputError: process 0 cannot be reached in `REACH_SECONDS`, its port is taken, a process does not connect in
        `GATHER_SECONDS`, or the processes have different counts or equal numbers.
    """
    host, _, port = address.rpartition(":")
    if process > 0:
        with _reach(host.strip("[]"), int(port)) as connection:
            connection.sendall(HELLO.format(process=process, count=count).encode())
            _wait_for_go(connection, address)
        return
    with _listen(int(port)) as server, _reach(host.strip("[]"), int(port)) as own:
        # Process 0 connects to itself too. This fails if HOST is another machine.
        own.sendall(HELLO.format(process=0, count=count).encode())
        _gather(server, count)


def _listen(port: int) -> socket.socket:
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        return socket.create_server(("", port), family=family, dualstack_ipv6=both, backlog=1024)
    except (OSError, OverflowError) as error:
        raise InputError(f"port {port} is in use ({_reason(error)}); give all processes another") from error


def _reach(host: str, port: int) -> socket.socket:
    """Connect to process 0, and try again until it answers."""
    end = time.monotonic() + REACH_SECONDS
    while True:
        try:
            return socket.create_connection((host, port), timeout=max(0.1, end - time.monotonic()))
        except (OSError, OverflowError, UnicodeError) as error:
            if time.monotonic() >= end or not isinstance(error, OSError):
                advice = "start process 0 first, and give its address to all processes"
                raise InputError(f"no answer at {host}:{port} ({_reason(error)}); {advice}") from error
        time.sleep(0.2)


def _wait_for_go(connection: socket.socket, address: str) -> None:
    connection.settimeout(GATHER_SECONDS + REACH_SECONDS)
    try:
        answer = connection.makefile().readline(1000)
    except (OSError, UnicodeError) as error:
        answer = _reason(error)
    if answer != GO:
        raise InputError(f"process 0 at {address} stopped ({answer.strip() or 'without a message'})")


def _gather(server: socket.socket, count: int) -> None:
    """Accept the connections of all processes, then send them GO or an error."""
    came: dict[int, socket.socket] = {}
    start, told = time.monotonic(), False
    try:
        while len(came) < count:
            missing = [str(number) for number in range(count) if number not in came]
            processes = f"process{'es' * (len(missing) > 1)} {', '.join(missing)}"
            server.settimeout(max(0.1, start + (GATHER_SECONDS if told else TELL_SECONDS) - time.monotonic()))
            try:
                connection, _ = server.accept()
            except TimeoutError:
                if told:
                    problem = f"{processes} of {count} did not connect within {GATHER_SECONDS:.0f} s"
                    raise InputError(f"{problem}; start them, or lower the number of processes") from None
                print(f"process 0 of {count} waits for {processes}", file=sys.stderr, flush=True)
                told = True
                continue
            if (number := _introduced(connection, count, came)) is not None:
                came[number] = connection
        _tell(came.values(), GO)
    except InputError as error:
        _tell(came.values(), f"{error}\n")
        raise


def _introduced(connection: socket.socket, count: int, came: Container[int]) -> int | None:
    """The number of the process that connects; None for a port scan or the like."""
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
        problem = f"process {number} was started for {of} processes and process 0 for {count}; give all the same number"
    elif number in came:
        problem = f"two processes have the number {number}; number them from 0 to {count - 1}"
    if problem:
        _tell([connection], f"{problem}\n")
        raise InputError(problem)
    return number


def _tell(connections: Iterable[socket.socket], line: str) -> None:
    """Send a line to processes and close the connections."""
    for connection in connections:
        with connection, contextlib.suppress(OSError):  # It has ended; JAX will notice.
            connection.sendall(line.encode())


def _reason(error: BaseException) -> str:
    number = getattr(error, "errno", None)
    if isinstance(number, int) and number in errno.errorcode and not isinstance(error, socket.gaierror):
        return os.strerror(number)  # Python's own text has the address too.
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
