"""What is remembered of the records that were shown last, and that it has a bound."""

from tornado_logsrv import recent
from tornado_logsrv.query import parse
from tornado_logsrv.recent import Entry, Recent
from tornado_logsrv.watchers import Group, Wanted

GROUPS = [Group(Wanted(parse(f"n:{n}"))) for n in range(500)]


def entry(number, stored=False):
    return Entry(b"%012d" % number, b"x" * 100, stored, told=True)


def test_whom_a_record_was_shown_to_is_known_until_it_is_settled():
    remembered, shown = Recent(), entry(1)
    remembered.add(shown)
    remembered.show(shown, GROUPS[:2])
    remembered.show(shown, GROUPS[2:3])
    assert remembered.settle(shown, None) == GROUPS[:3]
    assert shown.groups == []


def test_records_that_were_shown_to_many_take_as_much_memory_as_they_may():
    remembered = Recent()
    for number in range(20_000):
        shown = entry(number)
        remembered.add(shown)
        remembered.show(shown, GROUPS)
    assert recent.MAX_BYTES // 5000 < len(remembered) < recent.MAX_BYTES // 4000
    # Who was shown those that were forgotten is not known, until they must have been settled.
    assert remembered.forgetful
    for number in range(20_000):
        kept = remembered.get(b"%012d" % number)
        if kept is not None:
            remembered.settle(kept, None)
    remembered.look_again()
    assert not remembered.forgetful
    assert remembered._bytes == 100 * len(remembered)


def test_once_they_are_settled_there_is_room_for_others():
    remembered = Recent()
    for number in range(20_000):
        shown = entry(number)
        remembered.add(shown)
        remembered.show(shown, GROUPS)
        remembered.settle(shown, None)
    assert len(remembered) == 20_000
    assert not remembered.forgetful


def test_what_is_remembered_no_more_takes_nothing():
    remembered, shown = Recent(), entry(1)
    remembered.show(shown, GROUPS)
    assert (shown.groups, remembered._bytes) == ([], 0)
