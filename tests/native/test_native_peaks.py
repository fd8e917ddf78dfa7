"""The limits that ``explain`` holds a model against."""

from __future__ import annotations

import pytest
from native_cases import HERE

from hasten.host import host
from hasten.native.peaks import _sizes, measure


def test_a_shared_cache_is_read_well_within_it_and_beyond_the_one_before():
    sizes = _sizes({"L1d": 32 << 10, "L2": 512 << 10, "L3": 32 << 20})
    assert sizes == {"L1d": 16 << 10, "L2": 256 << 10, "L3": 4 << 20, "memory": 128 << 20}
    assert _sizes({"L2": 2 << 20, "L3": 6 << 20})["L3"] == 3 << 20


@pytest.mark.skipif(HERE.arch == "any", reason="caches of unknown machines may not be told")
def test_every_level_has_a_rate():
    found = measure()
    assert found.gmac_per_s > 0 and found.int8_gmac_per_s > 0
    assert set(found.bandwidth) == {*host().caches, "memory"}
    assert all(rate > 0 for rate in found.bandwidth.values())
    assert found.gb_per_s == found.bandwidth["memory"]
