"""Progress bars on stderr, silent if stderr is not a terminal."""

import threading
from typing import Any

from tqdm import tqdm


class Bar(tqdm):
    """tqdm's bar with its own lock, for threads only.

    tqdm's default lock includes a multiprocessing semaphore. With spawned processes, a killed command would leave a
    warning about a leaked semaphore on stderr. The lock of `tqdm` itself is unchanged, since other code in the process
    can pass it to its workers.
    """

    def __init__(self, *args: Any, disable: bool | None = None, **kwargs: Any) -> None:
        super().__init__(*args, disable=disable, dynamic_ncols=True, **kwargs)


Bar.set_lock(threading.RLock())
