"""Memory limits of containers, from files as the kernel writes them."""

from __future__ import annotations

import pytest

from HSAMSegmentLib.runtime.control_groups import free_group_memory

INF = float("inf")
NO_LIMIT_V1 = "9223372036854771712"


def version_2(group, limit, usage, inactive=0):
    base = f"{group}/" if group else ""
    stat = f"anon 5\ninactive_anon 7\ninactive_file {inactive}\n"
    return {f"{base}memory.max": f"{limit}\n", f"{base}memory.current": f"{usage}\n", f"{base}memory.stat": stat}


def version_1(group, limit, usage, inactive=0):
    base = f"memory/{group}/" if group else "memory/"
    return {
        f"{base}memory.limit_in_bytes": f"{limit}\n",
        f"{base}memory.usage_in_bytes": f"{usage}\n",
        f"{base}memory.stat": f"cache 9\ninactive_file 1\ntotal_inactive_file {inactive}\n",
    }


@pytest.mark.parametrize(
    ("groups", "files", "free"),
    [
        ("0::/\n", version_2("", "max", 100), INF),
        ("0::/\n", version_2("", 1000, 400), 600),
        ("0::/\n", version_2("", 1000, 900, inactive=300), 400),
        ("0::/a/b\n", {**version_2("a/b", "max", 10), **version_2("a", 1000, 800)}, 200),
        ("0::/\n", version_2("", 1000, 1200), 0),
        ("5:memory:/w\n0::/\n", version_1("w", 4000, 1500, inactive=500), 3000),
        ("5:memory:/docker/f00\n", version_1("", 4000, 1500), 2500),
        ("5:cpu:/w\n", version_1("w", 4000, 1500), INF),
        ("", {}, INF),
    ],
)
def test_the_memory_is_what_the_narrowest_group_leaves(tmp_path, groups, files, free):
    for name, content in files.items():
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text(content)
    (tmp_path / "groups").write_text(groups)
    assert free_group_memory(tmp_path / "groups", tmp_path / "root") == free


def test_a_group_of_version_1_without_a_limit_leaves_more_than_any_computer_has(tmp_path):
    folder = tmp_path / "root" / "memory"
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text(NO_LIMIT_V1)
    (folder / "memory.usage_in_bytes").write_text("1000")
    (tmp_path / "groups").write_text("5:memory:/\n")
    assert free_group_memory(tmp_path / "groups", tmp_path / "root") > 2**60
