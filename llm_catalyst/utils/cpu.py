"""The number of processor cores for this process: its affinity mask, limited by its control groups."""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath


def count_usable_cores(root: Path = Path("/")) -> int:
    """The number of cores, at least one; a quota of 2.5 cores counts as 3. Without Linux, all cores.

    Args:
        root: the folder that holds proc and sys.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([allowed, *map(math.ceil, read_quotas(root))]))


def read_quotas(root: Path) -> Iterator[float]:
    """The quotas in cores of this process's control group and of those above it; nothing for those without a limit.

    In version 2 (Linux's Documentation/admin-guide/cgroup-v2.rst) one file holds quota and period, in version 1
    (scheduler/sched-bwc.rst) there are two files. A container may not see its own group; its limits are then at the
    top.
    """
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            number, controllers, path = line.split(":", 2)
            if number == "0":
                mount, files = root / "sys/fs/cgroup", ["cpu.max"]
            elif "cpu" in controllers.split(","):
                mount, files = root / "sys/fs/cgroup/cpu", ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
            else:
                continue
            group = PurePosixPath(path)
            for each in (group, *group.parents):
                with suppress(OSError):
                    folder = mount / each.relative_to("/")
                    quota, period = " ".join((folder / file).read_text() for file in files).split()
                    if quota not in ("max", "-1"):
                        yield int(quota) / int(period)
