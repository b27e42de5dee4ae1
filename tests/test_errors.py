import pytest

from jaxdiff.errors import UserError, require_at_least


def test_counts_have_two_bounds():
    require_at_least(1, a=1, b=2**31 - 1)
    with pytest.raises(UserError, match="`b` is 0; it must be at least 1"):
        require_at_least(1, a=1, b=0)
    with pytest.raises(UserError, match=f"`a` is {2**31}; it must be below 2"):
        require_at_least(1, a=2**31, b=1)
