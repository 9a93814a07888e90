"""File systems in a file, from which everything can be taken that was not synced; and a process stopped where it is.

Only the process that mounted them and what it starts see them: they go with it, however it ends.
"""

import ctypes
import fcntl
import os
import shutil
import signal
import struct
import subprocess
import uuid
from pathlib import Path

from scenario import Skip, until

NEW_MOUNT_NAMESPACE = 0x00020000  # CLONE_NEWNS
SHUTDOWN = 0x8004587D  # FS_IOC_SHUTDOWN
WITHOUT_LOG_FLUSH = 2
MAKE = {"ext4": ["mkfs.ext4", "-q", "-F"], "xfs": ["mkfs.xfs", "-q", "-f"]}


def own_mounts():
    """From now on nobody else sees what this process mounts."""
    if ctypes.CDLL(None).unshare(NEW_MOUNT_NAMESPACE):
        raise Skip("no mount namespace can be had here")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


def missing(*kinds):
    """What is not there of what disks of these kinds need; as text, empty where nothing is missing."""
    wanted = ["losetup", "mount", "umount", "unshare", *(MAKE[kind][0] for kind in kinds)]
    absent = [tool for tool in wanted if shutil.which(tool) is None]
    return "needs root" if os.geteuid() != 0 else f"not installed: {' '.join(absent)}" if absent else ""


def new_boot_id():
    return f"{uuid.uuid4()}\n"


class Disk:
    """Mounted where it was made. `boot_id` is for whoever starts a process on it."""

    def __init__(self, directory, kind="ext4", size=1 << 30):
        self.kind = kind
        self.boot_id = new_boot_id()
        self.image, self.mount = Path(directory) / "disk.img", Path(directory) / "disk"
        self.mount.mkdir(parents=True)
        with open(self.image, "wb") as image:
            image.truncate(size)
        subprocess.run([*MAKE[kind], self.image], check=True)
        if subprocess.run(["mount", "-o", "loop", self.image, self.mount], capture_output=True).returncode:
            raise Skip("no loop device can be mounted here")

    def cut(self):
        directory = os.open(self.mount, os.O_RDONLY)
        try:
            fcntl.ioctl(directory, SHUTDOWN, struct.pack("I", WITHOUT_LOG_FLUSH))
        finally:
            os.close(directory)

    def detach(self):
        subprocess.run(["umount", self.mount], check=True)
        until(20, "the killed process lets go of the file system", lambda: not subprocess.run(
            ["losetup", "--associated", self.image], check=True, capture_output=True).stdout)

    def free(self):
        """Bytes that may still be written."""
        known = os.statvfs(self.mount)
        return known.f_bavail * known.f_frsize

    def attach(self):
        subprocess.run(["mount", "-o", "loop", self.image, self.mount], check=True)


def stopped(pid):
    """Whether every thread that runs code of the process is stopped, or waits for the disk."""
    def state(task):
        name, _, fields = (task / "stat").read_text().rpartition(") ")
        return "T" if "(iou-" in name else fields[0]  # the ring's workers run no code of ours

    try:
        return all(state(task) in "TD" for task in Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return False


def freeze(process):
    """Stops every thread where it is. Without this the broker would live on for a moment and acknowledge what is lost: while
    ext4 shuts down, fdatasync may return 0 for data that never reach the disk (seen with Linux 6.18)."""
    os.kill(process.pid, signal.SIGSTOP)
    until(20, "all threads are stopped or wait for the disk", lambda: stopped(process.pid))
