import base64
import stat

import pytest

from tornado_logsrv import auth, token
from tornado_logsrv.auth import Allowance, Failures, Scope, Tokens
from tornado_logsrv.errors import RateLimited, StartError

SECRET = auth.new_secret()
DIGEST = auth.digest_of(SECRET)
ENTRY = f'[[token]]\nname = "a"\nsha256 = "{DIGEST}"\nscopes = ["write"]\n'


class Clock:
    """Seconds that a test moves."""

    now = 1000.0

    def __call__(self):
        return self.now


def basic(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def test_a_token_is_found_by_its_secret_and_by_nothing_else():
    tokens = Tokens.parse(ENTRY)
    assert tokens.find(SECRET.encode()).name == "a"
    for wrong in (b"", SECRET[:-1].encode(), DIGEST.encode(), b"\xff"):
        assert tokens.find(wrong) is None


def test_a_token_has_what_its_entry_says():
    more = 'source = "till"\ntenant = "acme"\nrequests_per_second = 2.5\nbytes_per_day = "1GiB"\n'
    (found,) = Tokens.parse(ENTRY.replace('"write"', '"read", "admin"') + more)
    assert (found.scopes, found.source, found.tenant) == ({Scope.READ, Scope.ADMIN}, "till", "acme")
    assert (found.is_bound, found.is_limited) == (True, True)
    assert not Tokens.parse(ENTRY).find(SECRET.encode()).is_limited


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("token = 1", "Expected `array`"),
        ("[[token]]", "missing required field `name`"),
        (ENTRY + 'colour = "red"', "unknown field `colour`"),
        (ENTRY.replace('"write"', '"root"'), "'root'"),
        (ENTRY.replace('"write"', ""), "length >= 1"),
        (ENTRY.replace(DIGEST, DIGEST.upper() + "0"), "matching regex"),
        (ENTRY.replace('"a"', '"a b"'), "matching regex"),
        (ENTRY + 'source = "sixteen-letters!"', "matching regex"),
        (ENTRY + 'tenant = "a_b"', "matching regex"),
        (ENTRY + 'tenant = "quarantine"', "cannot be called quarantine"),
        (ENTRY + "requests_per_second = 0", "> 0"),
        (ENTRY + 'bytes_per_day = "much"', "must be a size"),
        (ENTRY + "bytes_per_day = 0", "more than 0"),
        (ENTRY + ENTRY, "two tokens have the name a"),
        (ENTRY + ENTRY.replace('"a"', '"b"'), f"two tokens have the sha256 {DIGEST}"),
        ("[[token", "Expected"),
    ],
    ids=range(16),
)
def test_a_file_that_is_not_right_says_where(tmp_path, text, said):
    path = tmp_path / "tokens.toml"
    path.write_text(text)
    with pytest.raises(StartError, match=r"^--tokens_file: .*/tokens.toml cannot be read: ") as wrong:
        Tokens.read(str(path))
    assert said in str(wrong.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(StartError, match="No such file"):
        Tokens.read(str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("authorization", "found"),
    [
        (f"Bearer {SECRET}", [SECRET]),
        (f"bearer   {SECRET} ", [SECRET]),
        (f"Splunk {SECRET}", [SECRET]),
        (f"Basic {basic('any', SECRET)}", [SECRET]),
        (f"Basic {basic('', 'a:b')}", ["a:b"]),
        (f"ApiKey {SECRET}", [SECRET]),
        (f"ApiKey {basic('id', SECRET)}", [basic("id", SECRET), SECRET]),
        ("", []),
        ("Bearer", []),
        (f"Digest {SECRET}", []),
        (SECRET, []),
        ("Basic !", []),
        (f"Basic {base64.b64encode(b'no colon').decode()}", []),
        (f"Basic {basic('user', '')}", []),
        (f"Bearer {'x' * 2000}", []),
    ],
    ids=range(15),
)
def test_a_secret_is_taken_from_what_each_sender_sends(authorization, found):
    assert auth.secrets_in(authorization) == [secret.encode() for secret in found]


def test_an_allowance_is_spent_and_comes_back():
    clock = Clock()
    allowance = Allowance(2, 4, clock)
    allowance.spend(4)
    assert allowance.wait() == 0
    allowance.spend(2)
    assert allowance.wait() == 1
    clock.now += 0.75
    assert allowance.wait() == pytest.approx(0.25)
    clock.now += 1000
    assert allowance.wait() == 0
    allowance.spend(3)
    assert allowance.wait() == 0
    allowance.spend(2)
    assert allowance.wait() == 0.5


def test_a_token_over_its_rate_or_quota_says_when_to_come_again():
    (rate,) = Tokens.parse(ENTRY + "requests_per_second = 0.5")
    rate.request()
    rate.request_rate.spend(1)
    assert rate.is_over
    with pytest.raises(RateLimited, match="a is over its requests_per_second") as limited:
        rate.request()
    assert 1 <= limited.value.retry_after <= 2
    (quota,) = Tokens.parse(ENTRY + "bytes_per_day = 86400")
    quota.request()
    quota.took([bytes(86400 + 60)])
    with pytest.raises(RateLimited, match="a is over its bytes_per_day") as limited:
        quota.request()
    assert 59 <= limited.value.retry_after <= 60


def test_what_was_spent_counts_on_when_the_file_is_read_again():
    text = ENTRY + "bytes_per_day = 1000"
    before = Tokens.parse(text)
    before.find(SECRET.encode()).took([bytes(2000)])
    (after,) = Tokens.parse(text, before)
    with pytest.raises(RateLimited):
        after.request()
    (fresh,) = Tokens.parse(text)
    fresh.request()


def test_a_guess_waits_longer_each_time_and_others_do_not():
    clock = Clock()
    failures = Failures(clock)
    assert [failures.count("192.0.2.1") for _ in range(6)] == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0]
    assert failures.count("192.0.2.2") == 0.1
    assert failures.total == 7
    clock.now += auth.FORGET_SECONDS + 1
    assert failures.count("192.0.2.1") == 0.1


def test_addresses_of_one_ipv6_network_are_one():
    failures = Failures()
    assert [failures.count(f"2001:db8::{n}") for n in (1, 2)] == [0.1, 0.2]
    assert failures.count("2001:db8:0:1::1") == 0.1


def test_failures_take_bounded_memory():
    failures = Failures()
    for number in range(auth.MAX_ADDRESSES + 100):
        failures.count(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(failures) == auth.MAX_ADDRESSES
    assert failures.count("10.0.0.1") == 0.1


# python -m tornado_logsrv.token


def test_a_token_is_made_and_its_secret_shown_once(tmp_path, capsys):
    path = tmp_path / "tokens.toml"
    given = ["--name=till", "--scope=write", "--scope=read", "--source=till", "--requests_per_second=5",
             "--bytes_per_day=1GiB", f"--file={path}"]  # fmt: skip
    assert token.main(given) == 0
    secret = capsys.readouterr().out.strip()
    assert secret.startswith(auth.PREFIX)
    assert secret not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert token.main(["--name=other", f"--file={path}"]) == 0
    tokens = Tokens.read(str(path))
    assert [each.name for each in tokens] == ["till", "other"]
    made = tokens.find(secret.encode())
    assert (made.scopes, made.source, made.is_limited) == ({Scope.WRITE, Scope.READ}, "till", True)


def test_without_a_file_the_lines_to_add_are_shown(capsys):
    assert token.main(["--name=till", "--tenant=acme"]) == 0
    secret, _, lines = capsys.readouterr().out.partition("\n")
    assert Tokens.parse(lines).find(secret.encode()).tenant == "acme"


@pytest.mark.parametrize("given", [["--name=a"], ["--name=b c"], ["--name=b", "--tenant=A"]])
def test_what_would_spoil_the_file_is_refused_and_leaves_it(tmp_path, capsys, given):
    path = tmp_path / "tokens.toml"
    path.write_text(ENTRY)
    assert token.main([*given, f"--file={path}"]) == 2
    printed = capsys.readouterr()
    assert (printed.out, path.read_text()) == ("", ENTRY)
    assert str(path) in printed.err
