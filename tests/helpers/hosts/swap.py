"""Mounts folders in a host so that files of root on the real machine belong to ada there.

Arguments: ada's id, then each folder and its mount point. So the tests, which run as root, own
ada's files. Files of root in the host have ada's id on the real machine.
"""

import ctypes
import os
import signal
import struct
import sys

# From <linux/mount.h>, <linux/sched.h> and the table of system calls, the same on each processor.
OPEN_TREE, MOVE_MOUNT, MOUNT_SETATTR = 428, 429, 442
OPEN_TREE_CLONE, MOVE_MOUNT_F_EMPTY_PATH, MOUNT_ATTR_IDMAP = 1, 4, 0x100000
AT_FDCWD, AT_EMPTY_PATH, CLONE_NEWUSER = -100, 0x1000, 0x10000000
LAST = 65535  # the highest id that a file may have
LIBC = ctypes.CDLL(None, use_errno=True)


def call(function, *arguments):
    """What a system call returns; OSError if it fails."""
    result = function(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def open_swap(user):
    """A user namespace, held open, where root and this user have changed places."""
    unshared, told = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(unshared)
            call(LIBC.unshare, CLONE_NEWUSER)
            os.close(told)
            signal.pause()
        finally:
            os._exit(1)
    os.close(told)
    os.read(unshared, 1)  # ends when the child closes it
    try:
        for ids in ("uid_map", "gid_map"):
            with open(f"/proc/{child}/{ids}", "w") as file:
                file.write(f"0 {user} 1\n1 1 {user - 1}\n{user} 0 1\n")
                file.write(f"{user + 1} {user + 1} {LAST - user}\n")
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def bind(folder, point, swap):
    tree = call(LIBC.syscall, OPEN_TREE, AT_FDCWD, os.fsencode(folder), OPEN_TREE_CLONE)
    attributes = struct.pack("QQQQ", MOUNT_ATTR_IDMAP, 0, 0, swap)
    call(LIBC.syscall, MOUNT_SETATTR, tree, b"", AT_EMPTY_PATH, attributes, len(attributes))
    place = os.fsencode(point)
    call(LIBC.syscall, MOVE_MOUNT, tree, b"", AT_FDCWD, place, MOVE_MOUNT_F_EMPTY_PATH)


def main(user, *folders):
    swap = open_swap(int(user))
    for folder, point in zip(folders[::2], folders[1::2], strict=True):
        try:
            bind(folder, point, swap)
        except OSError as error:
            sys.exit(f"{folder} cannot be mounted with other ids: {error.strerror}")


if __name__ == "__main__":
    main(*sys.argv[1:])
