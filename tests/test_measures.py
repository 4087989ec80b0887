"""measures.py: durations in buckets, names of routes, and how long the queue has waited."""

from tornado_logsrv.measures import Histogram, Requests, RouteNames, Waiting


def test_an_observation_is_counted_in_the_first_bucket_that_holds_it():
    histogram = Histogram((1.0, 10.0))
    for value in (0.5, 1.0, 1.5, 10.0, 11.0):
        histogram.observe(value)
    assert (histogram.counts, histogram.sum) == ([2, 2, 1], 24.0)


def test_requests_are_counted_by_method_route_and_status():
    requests = Requests()
    for status in (202, 503, 202):
        requests.of("POST", "/add-job", status).observe(0.1)
    assert [(labels, sum(found.counts)) for labels, found in requests] == [
        (("POST", "/add-job", 202), 2),
        (("POST", "/add-job", 503), 1),
    ]


def test_a_route_is_named_by_its_pattern_and_there_is_no_name_for_what_is_none():
    names = RouteNames([("/logs$", "logs"), ("/q/([0-9a-f]{24})/replay$", "replay"), ("/a/(.*)", "a"), ("/b$", "a")])
    assert names.of("logs", "/logs") == "/logs"
    assert names.of("replay", f"/q/{'0' * 24}/replay") == "/q/*/replay"
    assert (names.of("a", "/a/x"), names.of("a", "/b")) == ("/a/*", "/b")
    assert (names.of("logs", "/else"), names.of("nobody", "/logs")) == ("other", "other")


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_the_oldest_record_has_waited_since_the_look_that_first_counted_it():
    clock = Clock()
    waiting = Waiting(clock)
    waiting.look(0, 0)
    assert waiting.seconds == 0
    waiting.look(0, 10)
    clock.now += 5
    waiting.look(0, 20)
    assert waiting.seconds == 5
    # The first ten are stored: the oldest is one of those counted at the second look.
    clock.now += 1
    waiting.look(10, 20)
    assert waiting.seconds == 1
    waiting.look(20, 20)
    assert waiting.seconds == 0


def test_a_long_outage_is_remembered_by_a_bounded_number_of_looks():
    clock = Clock()
    waiting = Waiting(clock)
    for second in range(10_000):
        waiting.look(0, second + 1)
        clock.now += 1
    assert waiting.seconds == 10_000
    assert len(waiting._looks) <= 512
    # Half is stored: what is left has waited half as long, to within the looks that were forgotten.
    waiting.look(5_000, 10_000)
    assert abs(waiting.seconds - 5_000) < 100


def test_records_that_return_to_the_head_are_old_again():
    clock = Clock()
    waiting = Waiting(clock)
    waiting.look(0, 10)
    clock.now += 60
    waiting.look(3, 11)
    assert waiting.seconds == 60
