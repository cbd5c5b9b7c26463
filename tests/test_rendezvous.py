"""Processes meet, or each fails with one line. Threads represent processes here."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from jaxvae import InputError, rendezvous, sharding


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("REACH_SECONDS", 0.5), ("TELL_SECONDS", 0.2), ("GATHER_SECONDS", 1.0)):
        monkeypatch.setattr(rendezvous, name, seconds)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def outcome(address: str, process: int, count: int) -> str:
    try:
        rendezvous.meet(address, process, count)
    except InputError as error:
        return str(error)
    return "go"


def outcomes(address: str, *processes: tuple[int, int]) -> list[str]:
    """The outcome of each process (number, count), all started at once."""
    with ThreadPoolExecutor(len(processes)) as pool:
        return list(pool.map(lambda one: outcome(address, *one), processes))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_processes_of_one_job_meet(host: str) -> None:
    address = f"{host}:{free_port()}"
    assert outcomes(address, (2, 3), (0, 3), (1, 3)) == ["go"] * 3
    # The port is free again at once, for JAX.
    assert outcomes(address, (1, 2), (0, 2)) == ["go"] * 2


def test_process_0_can_start_a_little_later() -> None:
    address = f"127.0.0.1:{free_port()}"
    with ThreadPoolExecutor(1) as pool:
        early = pool.submit(outcome, address, 1, 2)
        time.sleep(0.3)
        assert outcome(address, 0, 2) == "go"
        assert early.result() == "go"


def test_a_wrong_address_fails_with_one_line() -> None:
    port = free_port()
    line = outcome(f"127.0.0.1:{port}", 1, 2)
    assert line.startswith(f"no answer at 127.0.0.1:{port} (Connection refused); start process 0 first")
    assert outcome("no-such-host.invalid:1234", 1, 2).startswith("no answer at no-such-host.invalid:1234 (")
    assert outcome("127.0.0.1:99999", 1, 2).startswith("no answer at 127.0.0.1:99999 (")
    assert outcome("127.0.0.1:99999", 0, 2).startswith("port 99999 is in use (")


def test_another_machines_host_fails_for_process_0() -> None:
    assert outcome(f"no-such-host.invalid:{free_port()}", 0, 2).startswith("no answer at no-such-host.invalid")


def test_a_port_in_use_fails_with_one_line() -> None:
    with socket.create_server(("0.0.0.0", 0)) as other:
        port = other.getsockname()[1]
        line = outcome(f"127.0.0.1:{port}", 0, 1)
    assert line == f"port {port} is in use (Address already in use); give all processes another"


def test_another_program_at_the_address_fails_with_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            connection, _ = other.accept()
            with connection:
                connection.sendall(b"SSH-2.0-OpenSSH\r\n")

        threading.Thread(target=answer).start()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        assert outcome(address, 1, 2) == f"process 0 at {address} stopped (SSH-2.0-OpenSSH)"


def test_other_connections_to_the_port_are_closed() -> None:
    port = free_port()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(outcome, f"127.0.0.1:{port}", 0, 2)
        with rendezvous._reach("127.0.0.1", port) as scan:
            scan.sendall(b"GET / HTTP/1.1\r\n")
            assert scan.recv(10) == b""
        assert outcome(f"127.0.0.1:{port}", 1, 2) == "go"
        assert first.result() == "go"


def test_all_processes_name_a_missing_process(capsys: pytest.CaptureFixture[str]) -> None:
    address = f"127.0.0.1:{free_port()}"
    missing = "processes 1, 3 of 4 did not connect within 1 s; start them, or lower the number of processes"
    assert outcomes(address, (0, 4), (2, 4)) == [missing, f"process 0 at {address} stopped ({missing})"]
    assert capsys.readouterr().err == "process 0 of 4 waits for processes 1, 3\n"


def test_processes_with_other_counts_or_equal_numbers_fail() -> None:
    address = f"127.0.0.1:{free_port()}"
    counts = "process 1 was started for 3 processes and process 0 for 2; give all the same number"
    assert outcomes(address, (0, 2), (1, 3)) == [counts, f"process 0 at {address} stopped ({counts})"]
    address = f"127.0.0.1:{free_port()}"
    twice = "two processes have the number 1; number them from 0 to 2"
    assert outcomes(address, (0, 3), (1, 3), (1, 3))[0] == twice


def test_join_names_its_argument() -> None:
    where = f"127.0.0.1:{free_port()}/1/2"
    with pytest.raises(InputError, match=f"where='{where}': no answer at 127.0.0.1"):
        sharding.join(where)
