import pytest

from tornado_logsrv.errors import Forbidden
from tornado_logsrv.origins import Origins


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:3000",
        "localhost.",
        "127.0.0.1",
        "127.9.9.9:1",
        "[::1]:3000",
        "logs.example:80",
        "[fd00::7]",
    ],
)
def test_a_server_on_loopback_goes_by_its_own_names(host):
    origins = Origins(("logs.example", "fd00::7"))
    origins.check_host(host)
    assert [origins.knows_host(host.encode()) for _ in range(2)] == [True, True]


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "10.0.0.1",
        "",
        "[",
        "::1",
        "[::1]evil.example",
        "[::1].evil.example",
        "[::1]:3000evil.example",
        "[127.0.0.1]",
        "[localhost]",
        "[::1",
        "::1]",
        "[::1%25lo]",
        "localhost:3000:evil.example",
        "localhost:evil.example",
        "localhost:3000.evil.example",
        "localhost@evil.example",
        "localhost..",
        ".localhost",
        "127.1",
        "2130706433",
        "0x7f.0.0.1",
        "0.0.0.0",
        "[::]",
        "localhost,evil.example",
        " localhost",
        "localhost\n",
    ],
)
def test_and_by_no_other(host):
    origins = Origins(())
    with pytest.raises(Forbidden, match="is not called"):
        origins.check_host(host)
    assert not origins.knows_host(host.encode())


def test_where_names_are_not_checked_any_will_do_and_few_are_remembered():
    origins = Origins(None)
    for number in range(1000):
        assert origins.knows_host(f"h{number}.example".encode())
    assert len(origins._seen) <= 256


OWN = ("127.0.0.1:3000", None, None)


@pytest.mark.parametrize(
    ("origin", "site"),
    [
        (None, None),
        (None, "same-origin"),
        (None, "none"),
        ("http://127.0.0.1:3000", None),
        ("http://127.0.0.1:3000", "same-origin"),
        ("https://app.example", "cross-site"),
        ("https://app.example", None),
    ],
)
def test_own_pages_and_those_that_are_named_may(origin, site):
    Origins((), ("https://app.example",)).check_page(
        "127.0.0.1:3000", origin, site, is_secure=False, follows_link=False
    )


@pytest.mark.parametrize(
    ("origin", "site"),
    [
        (None, "cross-site"),
        (None, "same-site"),
        (None, "anything"),
        ("http://evil.example", None),
        ("http://evil.example", "cross-site"),
        ("http://127.0.0.1:8080", "same-site"),
        ("http://127.0.0.1:8080", None),
        ("http://127.0.0.1:3000", "cross-site"),
        ("null", None),
        ("", None),
        ("http://app.example", "cross-site"),
        ("http://[", None),
        ("http://a]b", None),
        ("http://127.0.0.1:3000/", None),
        ("ftp://127.0.0.1:3000", None),
        ("127.0.0.1:3000", None),
        ("//127.0.0.1:3000", None),
    ],
)
def test_pages_from_elsewhere_may_not(origin, site):
    with pytest.raises(Forbidden, match="may not use this server"):
        Origins((), ("https://app.example",)).check_page(
            "127.0.0.1:3000", origin, site, is_secure=False, follows_link=False
        )


def test_a_link_to_what_everybody_may_see_may_be_followed():
    Origins(()).check_page("127.0.0.1:3000", None, "cross-site", is_secure=False, follows_link=True)


def test_a_page_of_the_same_name_without_tls_is_from_elsewhere_to_a_server_with_it():
    def check(origin, is_secure):
        Origins(None).check_page("logs.example", origin, None, is_secure=is_secure, follows_link=False)

    for origin, is_secure in [
        ("https://logs.example", True),
        ("https://logs.example", False),
        ("http://logs.example", False),
    ]:
        check(origin, is_secure)
    for origin in ("http://logs.example", "ftp://logs.example", "//logs.example"):
        with pytest.raises(Forbidden, match="may not use this server"):
            check(origin, True)


def test_only_named_pages_are_let_to_read_answers():
    origins = Origins((), ("https://app.example",))
    assert origins.headers("https://app.example")["Access-Control-Allow-Origin"] == "https://app.example"
    assert origins.headers("https://evil.example") == {"Vary": "Origin"}
    assert origins.headers(None) == {"Vary": "Origin"}
    assert Origins(()).headers("https://app.example") == {}
    assert "Access-Control-Allow-Credentials" not in origins.headers("https://app.example")
