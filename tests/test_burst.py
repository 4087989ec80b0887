"""burst.py: how many lines of one kind there are."""

from tornado_logsrv.burst import A_SECOND, AT_ONCE, Burst, told


def test_so_many_at_once_and_then_one_a_second_and_the_others_are_counted():
    now = [0.0]
    burst = Burst(lambda: now[0])
    assert [burst.admits() for _ in range(AT_ONCE + 3)] == [True] * AT_ONCE + [False] * 3
    assert (burst.left_out(), burst.left_out()) == (3, 0)
    now[0] += 1 / A_SECOND
    assert [burst.admits(), burst.admits()] == [True, False]
    now[0] += 1e6
    assert sum(burst.admits() for _ in range(1000)) == AT_ONCE


def test_a_line_says_how_many_there_were_before_it():
    assert told(0) == ""
    assert told(7) == " (7 others like it are not in this log)"
