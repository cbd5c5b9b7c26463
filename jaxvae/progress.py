"""Progress bars on stderr. They are silent where stderr is no terminal."""

from __future__ import annotations

import threading
from typing import Any

from tqdm import tqdm


class Bar(tqdm):
    """tqdm's bar with a lock of its own, for threads.

    The lock that tqdm makes by itself is a semaphore of multiprocessing too. Where processes are spawned, a killed
    command would leave a warning about a leaked semaphore on stderr. tqdm's own bars keep their lock, since other code
    in the process may hand it to its workers.
    """

    def __init__(self, *args: Any, disable: bool | None = None, **kwargs: Any) -> None:
        super().__init__(*args, disable=disable, dynamic_ncols=True, **kwargs)


Bar.set_lock(threading.RLock())
