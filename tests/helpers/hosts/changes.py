"""Learns from Linux (inotify) what has changed in a folder, which saves searching it."""

import ctypes
import os
import struct
from pathlib import Path

# From <sys/inotify.h>.
MODIFY, ATTRIB, MOVED_FROM, MOVED_TO, CREATE, DELETE = 0x02, 0x04, 0x40, 0x80, 0x100, 0x200
OVERFLOW, IGNORED, ONLY_FOLDERS = 0x4000, 0x8000, 0x01000000
REPLACED = MOVED_FROM | MOVED_TO | CREATE | DELETE
EVENT = struct.Struct("iIII")  # watch, mask, cookie, bytes of the name that follows
LIBC = ctypes.CDLL(None, use_errno=True)


class Changes:
    """Watches every folder in a folder, but not in new ones: all that is in them is new.

    Not seen: what is written through mmap, or through a hard link in a new folder.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._folders: dict[int, str] = {}  # by watch
        self._complete = True
        descriptor = LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if descriptor < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        self._events = open(descriptor, "rb", buffering=0)  # noqa: SIM115
        self.watch("")

    def close(self):
        self._events.close()

    def watch(self, name: str):
        """Watch a folder below this one, and all folders in it."""
        for found, _, _ in os.walk(self.folder / name):
            mask = MODIFY | ATTRIB | REPLACED | ONLY_FOLDERS
            number = LIBC.inotify_add_watch(self._events.fileno(), os.fsencode(found), mask)
            if number < 0:  # for instance, the user has reached the limit of watches
                self._complete = False
                return
            relative = os.path.relpath(found, self.folder)
            self._folders[number] = "" if relative == "." else relative

    def read(self) -> dict[str, bool] | None:
        """The relative paths of what changed since the last call, and whether each was replaced.

        Replaced is what was made, removed or renamed; of a file or folder that was not, its content
        or its attributes changed. None: too much changed, or not everything is watched.
        """
        changed: dict[str, bool] = {}
        complete = self._complete
        while piece := self._events.read(1 << 20):
            at = 0
            while at < len(piece):
                number, mask, _, length = EVENT.unpack_from(piece, at)
                name = os.fsdecode(piece[at + EVENT.size : at + EVENT.size + length].rstrip(b"\0"))
                at += EVENT.size + length
                if mask & OVERFLOW:
                    complete = False
                elif mask & IGNORED:  # the folder is gone
                    self._folders.pop(number, None)
                else:
                    path = (
                        os.path.join(self._folders[number], name) if name else self._folders[number]
                    )
                    changed[path] = changed.get(path, False) or bool(mask & REPLACED)
        return changed if complete else None
