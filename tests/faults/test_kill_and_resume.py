import pytest

from tests.faults.kill_and_resume import check


@pytest.mark.slow
def test_killed_and_resumed_is_bit_identical(tmp_path):
    kills = check(tmp_path, kills=2, updates=400)
    assert sum(kills.values()) == 8
