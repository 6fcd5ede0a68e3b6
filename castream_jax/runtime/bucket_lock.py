"""A lock in a bucket, where no operating system releases what a dead process held: an object that its holder renews."""

import _thread
from collections.abc import Callable, Mapping
import json
import os
from pathlib import Path
import signal
import threading
import time
from typing import Any
import uuid

from castream_jax.runtime.bucket import file_system, in_one_sentence

RENEWED_EVERY = 30.0  # seconds
DEAD_AFTER = 180.0  # seconds since the last renewal after which a holder counts as dead
_SETTLED = 2.0  # seconds in which another one that takes over the same lock would have written over it

_MACHINE = ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid")


class BucketLock:
    """An object that is there while the lock is held, and says by whom.

    The store makes it for one process alone. A holder that dies on this machine is known to be dead at once, one on
    another machine `DEAD_AFTER` seconds after it has renewed the object last, by the store's own clock.

    Attributes:
        is_locked: whether this process holds it.
        holder: who else had it when this one asked; `host`, `process`, and what it told.
        seconds: after which that one counts as dead, if it does not renew it.
    """

    def __init__(self, address: str, holder: Mapping[str, Any], say: Callable[[str], None]):
        """Args:
        address: of the object.
        holder: `host`, `process`, and whatever else others may want to know of this process.
        say: told if another process has taken the lock over, as after this one was suspended; then the main thread is
            interrupted, and the process ended where nothing interrupts it.
        """
        self._address, self._say = address, say
        self._own = {**holder, "machine": _machine(), "hold": uuid.uuid4().hex}
        self._files = file_system(address)
        self._ended = threading.Event()
        self._renewal = threading.Thread(target=self._renew, daemon=True)
        self.is_locked = False
        self.holder: dict[str, Any] = {}
        self.seconds = 0.0

    def acquire(self) -> bool:
        """Takes the lock; if another process has it, returns False, and `holder` and `seconds` tell of that one."""
        with in_one_sentence(self._address):
            if not self._created():
                self.holder, self.seconds = self._read() or {}, self._seconds_left()
                if self.seconds > 0 and not self._has_died_here():
                    return False
                self._files.pipe_file(self._address, self._text())
                time.sleep(_SETTLED)
                self.holder, self.seconds = self._read() or {}, DEAD_AFTER
                if self.holder != self._own:
                    return False
        self.is_locked = True
        self._renewal.start()
        return True

    def release(self) -> None:
        """Removes the object, unless it is another one's by now."""
        self._ended.set()
        self._renewal.join()
        self.is_locked = False
        with in_one_sentence(self._address):
            if self._read() == self._own:
                self._files.rm_file(self._address)

    def _created(self) -> bool:
        try:
            self._files.pipe_file(self._address, self._text(), mode="create")
        except FileExistsError:
            return False
        except Exception:
            if self._read() is None:  # another error than that it is there, which not all packages call so
                raise
            return False
        return True

    def _renew(self) -> None:
        while not self._ended.wait(RENEWED_EVERY):
            try:
                if (holder := self._read()) not in (self._own, None):
                    who = f"process {holder.get('process')} on host {holder.get('host')}"
                    self._say(f"{who} has taken over {self._address}, which was not renewed for {DEAD_AFTER:.0f} s")
                    _interrupt()
                    return
                self._files.pipe_file(self._address, self._text())
            except Exception as error:  # the network may come back
                self._say(f"the lock {self._address} could not be renewed ({' '.join(str(error).split())[:120]})")

    def _read(self) -> dict[str, Any] | None:
        try:
            return json.loads(self._files.cat_file(self._address))
        except FileNotFoundError:
            return None
        except ValueError:
            return {}

    def _seconds_left(self) -> float:
        """Seconds after which the holder counts as dead. The store tells the time: machines' clocks differ."""
        now = f"{self._address}.{self._own['hold']}"
        self._files.pipe_file(now, b"")
        try:
            return DEAD_AFTER - (self._files.modified(now) - self._files.modified(self._address)).total_seconds()
        except FileNotFoundError:  # just released
            return 0.0
        finally:
            self._files.rm_file(now)

    def _has_died_here(self) -> bool:
        if not self._own["machine"] or self.holder.get("machine") != self._own["machine"]:
            return False
        try:
            os.kill(int(self.holder["process"]), 0)
        except ProcessLookupError:
            return True
        except (PermissionError, KeyError, ValueError):
            pass
        return False

    def _text(self) -> bytes:
        return json.dumps(self._own).encode()


def _interrupt() -> None:
    """Ctrl-C, which a command behind a shell script's `&` ignores: that one ends, as if it were killed."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        os._exit(1)
    _thread.interrupt_main()


def _machine() -> str:
    """What processes share whose numbers mean the same; empty where that is not known."""
    try:
        return f"{Path(_MACHINE[0]).read_text(encoding='utf-8').strip()} {os.readlink(_MACHINE[1])}"
    except OSError:
        return ""
