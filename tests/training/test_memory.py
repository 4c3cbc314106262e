"""What a training will take is stated; what cannot fit is refused before it starts."""

import psutil
import pytest
import tf_keras

from pipelines.training import memory
from pipelines.usage import UsageError


@pytest.fixture(scope="module")
def model():
    image = tf_keras.Input([8, 8, 3])
    inner = tf_keras.Model(image, tf_keras.layers.Conv2D(4, 3, padding="same")(image))
    return tf_keras.Sequential([inner, tf_keras.layers.Flatten()])


def test_every_layer_counts_once_for_each_example(model):
    weights = (3 * 3 * 3 * 4 + 4) * 4
    image, maps = 8 * 8 * 3 * 4, 8 * 8 * 4 * 4
    constant, batch = memory.estimate(model, 10)
    assert constant == memory.COPIES * weights
    layers = batch / (memory.COPIES * 10)
    assert 2 * maps <= layers <= 3 * maps + 2 * image


def test_what_fits_is_stated_and_what_does_not_is_refused_with_what_would(model):
    assert "memory: about " in memory.check(model, 10) and "batch of 10" in memory.check(model, 10)
    with pytest.raises(UsageError, match=r"global_batch_size: 1000000000 does not fit; \d+ would"):
        memory.check(model, 1_000_000_000)


GB = 10**9
V2 = "29 23 0:26 {inside} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n"
    "35 31 0:32 {inside} /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
)


@pytest.fixture
def machine(tmp_path):
    """Writes a machine's files below a folder: 100 GB free, the process in the group `own`, files of control groups."""

    def write(mount: str, own: str, files: dict[str, object], inside: str = "/"):
        for name, content in {
            "proc/meminfo": f"MemTotal: 200000000 kB\nMemAvailable: {100 * GB // 1024} kB\n",
            "proc/self/cgroup": own,
            "proc/self/mountinfo": f"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n{mount.format(inside=inside)}",
            **files,
        }.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(str(content).rstrip("\n") + "\n")
        return tmp_path

    return write


def stat(prefix: str = "", **counted: float) -> str:
    return "\n".join(f"{prefix}{name} {int(size * GB)}" for name, size in counted.items())


def group(folder: str, limit: object, used: float, statistics: str) -> dict[str, object]:
    """The files of a control group of version 2."""
    return {
        f"{folder}/memory.max": limit,
        f"{folder}/memory.current": int(used * GB),
        f"{folder}/memory.stat": statistics,
    }


def test_cached_files_in_a_container_are_room_for_a_training(model, machine):
    cached = stat(
        anon=0.9,
        file=7.0,
        file_mapped=0.5,
        inactive_file=5.0,
        active_file=2.0,
        slab_reclaimable=0.2,
    )
    root = machine(V2, "0::/", group("sys/fs/cgroup", 8 * GB, 7.9, cached))
    assert memory.available(root) == pytest.approx(8 * GB - (7.9 - 6.5 - 0.2) * GB)
    batch = int(
        6 * GB / memory.estimate(model, 1)[1]
    )  # Takes 6 GB, of 8 GB with 1.2 GB really in use.
    assert "GB there" in memory.check(model, batch, root)
    with pytest.raises(UsageError, match="does not fit"):
        memory.check(model, 2 * batch, root)


def test_the_narrowest_group_on_the_way_up_counts(machine):
    empty = stat(inactive_file=0)
    files = {
        **group("sys/fs/cgroup/pod", 6 * GB, 4.0, empty),
        **group("sys/fs/cgroup/pod/box", 5 * GB, 1.0, empty),
        **group("sys/fs/cgroup/pod/box/inner", "max", 1.0, empty),
        **group("sys/fs/cgroup/other", GB, 1.0, empty),
    }
    assert memory.available(machine(V2, "0::/pod/box/inner", files)) == 2 * GB


def test_a_group_that_is_only_slowed_down_counts_too(machine):
    files = {
        **group("sys/fs/cgroup", "max", 1.0, stat(inactive_file=0)),
        "sys/fs/cgroup/memory.high": 3 * GB,
    }
    assert memory.available(machine(V2, "0::/", files)) == 2 * GB


def test_without_limits_the_machine_counts(machine):
    free = 100 * GB // 1024 * 1024
    assert (
        memory.available(
            machine(V2, "0::/box", group("sys/fs/cgroup/box", "max", 50, stat(inactive_file=1)))
        )
        == free
    )
    assert memory.available(machine("", "0::/", {})) == free


def test_a_group_over_its_limit_leaves_nothing(machine):
    assert (
        memory.available(
            machine(V2, "0::/", group("sys/fs/cgroup", GB, 1.5, stat(inactive_file=0)))
        )
        == 0
    )


def version_1(folder: str, limit: int, used: float, statistics: str) -> dict[str, object]:
    names = {"limit_in_bytes": limit, "usage_in_bytes": int(used * GB), "stat": statistics}
    return {f"{folder}/memory.{name}": content for name, content in names.items()}


def test_version_1_counts_a_group_with_those_inside_it(machine):
    counted = (
        stat(inactive_file=9.0)
        + "\n"
        + stat("total_", inactive_file=3.0, active_file=1.0, mapped_file=0.5)
    )
    files = {
        **version_1("sys/fs/cgroup/memory", 9223372036854771712, 60, counted),
        **version_1("sys/fs/cgroup/memory/box", 8 * GB, 7.9, counted),
        "sys/fs/cgroup/cpu/memory.limit_in_bytes": 1,  # Not the memory controller's.
    }
    left = 8 * GB - (7.9 - 3.5) * GB
    assert memory.available(
        machine(V1, "4:memory:/box\n3:cpu:/elsewhere\n0::/", files)
    ) == pytest.approx(left)


@pytest.mark.parametrize(
    ("own", "inside"),
    [
        ("0::/", "/"),  # in a name space of its own
        ("0::/docker/1f", "/docker/1f"),  # the container's group is what is mounted
        ("0::/docker/1f/child", "/docker/1f"),
        ("0::/../elsewhere", "/"),  # moved out of what it sees
        ("0::/system/other", "/docker/1f"),
    ],
)
def test_a_container_sees_its_own_limit_at_the_mount_point(machine, own, inside):
    files = group("sys/fs/cgroup", 2 * GB, 1.0, stat(inactive_file=0))
    assert memory.available(machine(V2, own, files, inside)) == GB


def test_this_machine_can_be_read():
    assert 0 < memory.available() <= psutil.virtual_memory().total
