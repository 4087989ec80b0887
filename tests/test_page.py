"""The web page, in a real browser, on a real server."""

import contextlib
import datetime
import hashlib
import json
import os
import re
import time
import urllib.error
import urllib.request
from pathlib import Path

import pymongo
import pytest

from tornado_logsrv.readers import pages

from .browser import PATIENCE_MS, Visit, chromium, until
from .needs import needed
from .process import eventually, running

pytestmark = pytest.mark.long

SEEDED = 240
MANY = 10_000
HOSTILE = [
    "<img src=x onerror=\"document.title='owned'\">",
    "</script><script>document.title='owned'</script>",
    "\u202eright to left \u0627\u0644\u0639\u0631\u0628\u064a\u0629",
    "long " + "x" * 50_000,
    "escape \x1b[31mred\x1b[0m\x00",
]


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("page")


def options(servers, directory, name):
    return [
        f"--mongo_url={servers.mongo_url}", f"--mongo_db=logsrv_page_{name}_{os.getpid()}",
        f"--redis_url={servers.redis_url}", f"--redis_prefix=logsrv-page-{name}-{os.getpid()}",
        f"--data_dir={directory / name}", f"--instance={name}", "--flush_interval_ms=200",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def server(servers, directory):
    """A server with records of the last hour, of long ago, and hostile ones."""
    with running("--port=0", *options(servers, directory, "page"), log=directory / "page.log") as started:
        send(started, [record(i) for i in range(SEEDED)], minutes_ago=5)
        send(started, [{"message": text, "service": "hostile"} for text in HOSTILE], minutes_ago=90)
        eventually(lambda: started.get("/ledger")["total"]["stored"] == SEEDED + len(HOSTILE), "all is stored")
        yield started


def record(i):
    level = "error" if i % 12 == 0 else "warn" if i % 5 == 0 else "info"
    return {
        "level": level, "service": ("checkout", "cart", "search")[i % 3], "message": f"request {i} done",
        "latency_ms": i, "user": {"id": i % 7, "name": f"name {i % 4}"}, "tags": ["a", "b"],
    }  # fmt: skip


def send(server, records, minutes_ago=0.0, step=1.0):
    """Records by Elasticsearch's bulk API, which takes their times: ``step`` seconds apart, the last one the newest."""
    newest = time.time() - 60 * minutes_ago
    lines = []
    for place, each in enumerate(records):
        moment = datetime.datetime.fromtimestamp(newest - step * (len(records) - 1 - place), datetime.UTC)
        lines += [{"create": {}}, {**each, "@timestamp": moment.isoformat()}]
    body = "".join(json.dumps(line) + "\n" for line in lines).encode()
    answer = server.post("/app/_bulk", body, **{"Content-Type": "application/x-ndjson"})
    assert not answer["errors"]
    return [item["create"]["_id"] for item in answer["items"]]


@pytest.fixture
def visit(browser, server):
    """A reader, with whose page nothing may go wrong."""
    reader = Visit(browser, server.url)
    yield reader
    reader.done()


@contextlib.contextmanager
def reading(browser, url, **more):
    reader = Visit(browser, url, **more)
    yield reader
    reader.done()


def messages(page):
    return page.locator(".row .text").all_inner_texts()


def levels(page):
    return {level.strip() for level in page.locator(".row .level").all_inner_texts()}


def press(page, *keys):
    for key in keys:
        page.keyboard.press(key)


# Who gets the page


def ask(server, method="GET", path="/", **headers):
    request = urllib.request.Request(server.url + path, method=method, headers=headers)
    with urllib.request.urlopen(request) as response:
        return response.status, dict(response.headers), response.read()


HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8", "User-Agent": "Mozilla/5.0"}


def test_a_browser_gets_the_page_with_a_strict_policy(server):
    status, headers, body = ask(server, **HTML)
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert b"<title>logsrv</title>" in body
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self';")
    assert "unsafe" not in policy
    assert (headers["X-Content-Type-Options"], headers["Referrer-Policy"]) == ("nosniff", "no-referrer")


def test_all_files_are_named_ahead_the_style_first(server):
    _, headers, _ = ask(server, **HTML)
    named = re.findall(r"<static/([^>]+)>; rel=(\w+)", headers["Link"])
    assert named[0] == ("page.css", "preload")
    modules = {name for name, rel in named[1:] if rel == "modulepreload"}
    assert modules == set(pages.files()) - {"index.html", "page.css"}


def test_head_says_what_get_says(server):
    for path in ("/", "/static/page.css"):
        _, of_get, body = ask(server, path=path, **HTML)
        status, of_head, nothing = ask(server, "HEAD", path, **HTML)
        assert (status, nothing, of_head["Etag"]) == (200, b"", of_get["Etag"])
        assert int(of_head["Content-Length"]) == len(body)


def test_elasticsearchs_clients_get_theirs(server):
    _, headers, body = ask(server, **{"User-Agent": "Elastic-filebeat/8.13.4", "Accept": "application/json"})
    assert (headers["X-Elastic-Product"], json.loads(body)["tagline"]) == ("Elasticsearch", "You Know, for Search")


def test_who_does_not_ask_for_html_is_told_how_to_go_on(server):
    _, headers, body = ask(server, **{"User-Agent": "curl/8.5.0", "Accept": "*/*"})
    assert headers["Content-Type"] == "text/plain; charset=utf-8"
    assert f"{server.url}/add-job".encode() in body


def test_what_a_browser_has_is_not_sent_again(server):
    _, headers, plain = ask(server, path="/static/page.js")
    _, packed, body = ask(server, path="/static/page.js", **{"Accept-Encoding": "gzip"})
    assert (packed["Content-Encoding"], len(body) < len(plain)) == ("gzip", True)
    assert packed["Etag"] != headers["Etag"]
    with pytest.raises(urllib.error.HTTPError) as raised:
        ask(server, path="/static/page.js", **{"If-None-Match": headers["Etag"]})
    raised.value.close()
    assert raised.value.code == 304


def test_the_page_is_light():
    assert sum(len(file.packed) for file in pages.files().values()) < 60_000


@pytest.mark.parametrize("path", ["/static/nothing.js", "/static/index.html", "/static/..%2Fhandler.py", "/static/"])
def test_nothing_else_is_served(server, path):
    with pytest.raises(urllib.error.HTTPError) as raised:
        ask(server, path=path)
    raised.value.close()
    assert raised.value.code == 404


# Ask


def test_the_last_hour_is_shown_newest_first(visit):
    page = visit.open()
    assert messages(page)[0] == f"request {SEEDED - 1} done"
    assert page.locator("#total").inner_text() == f"{SEEDED} records"
    assert "balanced" in page.locator("#ledger").inner_text()
    assert visit.state == {}


def test_a_search_is_in_the_url_and_back_undoes_it(visit):
    page = visit.open()
    page.fill("#q", "level:error AND service:checkout")
    page.keyboard.press("Enter")
    until(page, "document.querySelector('#total').textContent === '20 records'")
    assert visit.state == {"q": "level:error AND service:checkout"}
    page.go_back()
    until(page, f"document.querySelector('#total').textContent === '{SEEDED} records'")
    assert page.input_value("#q") == ""


def test_a_link_shows_what_it_was_copied_from(visit):
    page = visit.open("/?q=level%3Awarn&from=now-6h&utc=1&panel=help")
    assert page.input_value("#q") == "level:warn"
    assert page.inner_text("#range") == "Last 6 hours"
    assert page.inner_text("#zone") == "UTC"
    assert page.is_visible("#panel")
    assert levels(page) == {"warn"}


def test_a_copied_link_stays_relative_unless_it_is_to_be_fixed(browser, server):
    with reading(browser, server.url, permissions=["clipboard-read", "clipboard-write"]) as visit:
        page = visit.open("/?q=level%3Aerror")
        page.click("#link")
        assert page.evaluate("navigator.clipboard.readText()") == server.url + "/?q=level%3Aerror"
        page.click("#link", modifiers=["Shift"])
        fixed = page.evaluate("navigator.clipboard.readText()")
        assert "from=20" in fixed
        assert "to=20" in fixed


def test_without_the_clipboards_api_which_plain_http_lacks_a_link_is_copied_all_the_same(visit):
    visit.context.add_init_script("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    page = visit.open("/?q=level%3Aerror")
    page.click("#link:has-text('Copy link')")
    page.locator("#link:has-text('Copied')").wait_for()
    page.fill("#q", "")
    page.keyboard.press("Control+v")
    assert page.input_value("#q") == f"{visit.url}/?q=level%3Aerror"


def test_a_wrong_query_is_underlined_where_it_is_wrong_and_the_nearest_right_one_offered(visit):
    page = visit.open("/?q=level%3Aerror+AND+%28cart")
    assert "Column 17" in page.inner_text("#wrong")
    assert page.inner_text("#under mark") == "("
    page.click("#wrong button")
    visit.settled()
    assert visit.state == {"q": "level:error AND (cart)"}
    assert page.is_hidden("#wrong")


def test_names_and_values_are_completed(visit):
    page = visit.open()
    page.locator("#names summary").first.wait_for()
    page.locator("#q").press_sequentially("NOT serv")
    assert "NOT service:" in options_of(page)
    page.locator("#q").press_sequentially("ice:")
    assert set(options_of(page)) == {f"NOT service:{name}" for name in ("cart", "checkout", "search")}


def options_of(page):
    return page.eval_on_selector_all("#completions option", "all => all.map(each => each.value)")


def test_what_finds_nothing_says_where_the_nearest_is_and_what_may_be_meant(visit):
    page = visit.open("/?q=service%3Ahostile")
    assert "No record matches" in page.inner_text("#empty")
    assert "The nearest before" in page.inner_text("#empty")
    page.click("text=Go there")
    page.locator(".row").first.wait_for()
    assert page.locator(".row").count() == len(HOSTILE)


def test_a_field_that_is_not_there_gets_the_nearest_name(visit):
    page = visit.open("/?q=servce%3Acart")
    page.click("#empty button:text('service:cart')")
    until(page, "document.querySelector('#total').textContent === '80 records'")


def refuse(page, path, times=None):
    """What matches ``path`` takes MongoDB too long."""
    problem = {"type": "urn:logsrv:problem:query-timeout", "status": 504, "detail": "MongoDB has not answered in 30 s"}
    answer = {"status": 504, "content_type": "application/problem+json", "body": json.dumps(problem)}
    page.route(path, lambda route: route.fulfill(**answer), times=times)


def test_what_takes_too_long_to_count_leaves_the_lines(visit):
    refuse(visit.page, re.compile("/logs/(histogram|fields)"))
    page = visit.open()
    assert messages(page)[0] == f"request {SEEDED - 1} done"
    assert page.inner_text("#total") == "Not counted: MongoDB has not answered in 30 s"


def test_that_nothing_matches_is_said_also_when_the_nearest_takes_too_long_to_find(visit):
    refuse(visit.page, re.compile(r"/logs\?.*limit=1&q="))
    page = visit.open("/?q=service%3Ahostile")
    assert "No record matches" in page.inner_text("#empty")
    assert "nearest" not in page.inner_text("#empty")


def test_what_is_done_in_200_ms_has_no_spinner_and_what_takes_longer_tells_how_long(visit):
    visit.page.clock.install()
    page, held = visit.open(), []
    page.clock.pause_at(datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=1))
    page.route(re.compile(r"/logs\?"), lambda search: held.append(search))
    page.fill("#q", "request")
    page.keyboard.press("Enter")
    page.clock.run_for(199)
    assert page.is_hidden("#busy")
    page.clock.run_for(1301)
    assert page.inner_text("#busy").startswith("Searching, 1.4 s")
    page.clock.resume()
    (search,) = held
    search.continue_()
    visit.settled()
    assert page.is_hidden("#busy")


def test_a_running_search_can_be_cancelled(visit):
    page = visit.open()
    page.route("**/logs?**", lambda route: None)
    page.fill("#q", "request")
    page.keyboard.press("Enter")
    page.click("#cancel")
    page.locator("#busy").wait_for(state="hidden")


def test_times_are_in_the_readers_zone_and_in_utc_on_a_click(visit):
    page = visit.open()
    named = page.inner_text("#zone")
    assert named in ("UTC+1", "UTC+2")
    shown = page.locator(".row .time").first
    shown.hover()
    here, title = shown.inner_text().strip(), shown.get_attribute("title")
    page.click("#zone")
    there = shown.inner_text().strip()
    assert (page.inner_text("#zone"), there != here) == ("UTC", True)
    assert f"T{there[-12:]}Z" in title


# When


def drag(page, low, high):
    box = page.locator("#chart").bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + low * box["width"], y)
    page.mouse.down()
    page.mouse.move(box["x"] + high * box["width"], y, steps=5)
    page.mouse.up()


def test_dragging_over_the_histogram_zooms(visit):
    page = visit.open()
    page.locator("#plot path").first.wait_for()
    drag(page, 0.8, 0.99)
    until(page, "!document.querySelector('#readout').textContent.startsWith('1m')")
    assert set(visit.state) == {"from", "to"}
    page.go_back()
    until(page, "document.querySelector('#readout').textContent.startsWith('1m')")
    assert visit.state == {}


def test_the_histogram_zooms_by_the_keyboard(visit):
    page = visit.open()
    page.locator("#plot path").first.wait_for()
    page.focus("#chart")
    press(page, "ArrowLeft", "Shift+ArrowLeft", "Shift+ArrowLeft")
    assert page.get_attribute("#chart", "aria-valuetext").startswith("20")
    page.keyboard.press("Enter")
    page.wait_for_url("**from=**")
    low, high = (datetime.datetime.fromisoformat(visit.state[name]) for name in ("from", "to"))
    assert high - low == datetime.timedelta(minutes=3)


def test_a_level_is_kept_or_dropped_by_a_click(visit):
    page = visit.open()
    page.click("[aria-label^='Only error']")
    until(page, "document.querySelector('#total').textContent === '20 records'")
    assert visit.state == {"q": "level:error"}
    page.click("[aria-label^='Only error']")
    until(page, f"document.querySelector('#total').textContent === '{SEEDED} records'")
    page.click("[aria-label='Not error']")
    until(page, f"document.querySelector('#total').textContent === '{SEEDED - 20} records'")
    assert visit.state == {"q": "NOT level:error"}


def test_a_range_is_chosen_or_written(visit):
    page = visit.open()
    page.click("#range")
    page.click("#quick button:text('Last 15 minutes')")
    visit.settled()
    assert visit.state == {"from": "now-15m"}
    page.click("#range")
    menu, opener = page.locator("#ranges").bounding_box(), page.locator("#range").bounding_box()
    assert opener["y"] + opener["height"] <= menu["y"] < opener["y"] + 2 * opener["height"]
    assert menu["x"] + menu["width"] == pytest.approx(opener["x"] + opener["width"], abs=1)
    page.fill("#from", "2026-01-31 12:00")
    page.fill("#to", "2026-01-31 13:00")
    page.keyboard.press("Enter")
    visit.settled()
    assert visit.state == {"from": "2026-01-31T11:00:00.000Z", "to": "2026-01-31T12:00:00.000Z"}
    assert "No records in this time" in page.inner_text("#empty")


# Narrow


def test_a_value_is_filtered_by_a_click_and_excluded_with_alt(visit):
    page = visit.open()
    page.click("#names .value:has-text('cart')")
    until(page, "document.querySelector('#total').textContent === '80 records'")
    assert visit.state == {"q": "service:cart"}
    page.click("#names .value:has-text('warn')", modifiers=["Alt"])
    until(page, "document.querySelector('#total').textContent !== '80 records'")
    assert visit.state == {"q": "service:cart AND NOT level:warn"}


# Read


def test_a_record_opens_to_its_fields_which_filter_and_exclude(visit):
    page = visit.open()
    page.locator(".row .text").first.click()
    pair = page.locator(".pair", has_text="user.name")
    assert pair.locator(".value").inner_text() == f"name {(SEEDED - 1) % 4}"
    pair.hover()
    pair.locator("text=Exclude").click()
    until(page, "document.querySelector('#total').textContent === '180 records'")
    assert visit.state["q"] == 'NOT user.name:"name 3"'


def test_an_opened_record_shows_the_lines_around_it(visit):
    page = visit.open("/?q=level%3Aerror")
    page.locator(".row .text").nth(3).click()
    opened = visit.state["open"]
    page.click("text=Lines around")
    page.locator("#around").wait_for()
    visit.settled()
    page.locator(".row.open").wait_for()
    assert (visit.state["open"], "q" in visit.state) == (opened, False)
    assert levels(page) > {"info"}
    page.click("#around-back")
    until(page, "document.querySelector('#total').textContent === '20 records'")


def test_who_came_by_a_link_to_the_lines_around_a_record_goes_to_all_of_them_and_not_away(visit):
    page = visit.open("/?q=level%3Aerror")
    page.locator(".row .text").nth(3).click()
    page.click("text=Lines around")
    page.locator("#around").wait_for()
    again = visit.context.new_page()
    again.goto(page.url)
    again.locator(".row.open").wait_for()
    again.click("#around-back")
    again.locator("#around").wait_for(state="hidden")
    assert again.url == f"{visit.url}/"


def test_an_integer_that_no_double_holds_is_shown_and_filtered_by_exactly(visit, server):
    stored = server.get("/ledger")["total"]["stored"]
    both = [{"message": "exact", "span": 1795349095001000001}, {"message": "near", "span": 1795349095001000002}]
    send(server, both, minutes_ago=120)
    eventually(lambda: server.get("/ledger")["total"]["stored"] == stored + 2, "both are stored")
    page = visit.open("/?q=_exists_%3Aspan&from=now-6h")
    page.click("#names summary:has-text('span')")
    page.click("#names .value:has-text('1795349095001000001')")
    until(page, "document.querySelector('#total').textContent === '1 record'")
    assert visit.state["q"] == "_exists_:span AND span:1795349095001000001"
    assert messages(page) == ["exact"]


def test_several_lines_are_copied_as_lines(browser, server):
    with reading(browser, server.url, permissions=["clipboard-read", "clipboard-write"]) as visit:
        page = visit.open()
        page.locator("#names summary").first.wait_for()
        page.evaluate(
            """() => {
                const [one, other] = document.querySelectorAll('.text');
                getSelection().setBaseAndExtent(one, 0, other, 1);
            }"""
        )
        page.keyboard.press("Control+c")
        lines = page.evaluate("navigator.clipboard.readText()").splitlines()
    assert len(lines) == 2
    assert f"request {SEEDED - 1} done" in lines[0]


def test_log_text_is_text_whatever_it_holds(visit):
    page = visit.open("/?q=service%3Ahostile&from=now-6h")
    assert page.locator(".row").count() == len(HOSTILE)
    for place in range(len(HOSTILE)):
        page.locator(".row .time").nth(place).click()
        page.locator(".row.open .pair").first.wait_for()
    assert page.title() == "logsrv"
    assert page.locator("#list img, #list script").count() == 0
    assert HOSTILE[0] in messages(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 1280


@pytest.fixture(scope="module")
def many(server):
    """MANY records of the day before."""
    stored = server.get("/ledger")["total"]["stored"]
    for first in range(0, MANY, 1000):
        send(server, [{"n": first + i, "message": f"line {first + i}"} for i in range(1000)], 1440 - first / 100, 0.01)
    eventually(lambda: server.get("/ledger")["total"]["stored"] == stored + MANY, "all is stored")
    return MANY


def test_ten_thousand_rows_are_scrolled_with_few_of_them_on_the_page(visit, many):
    page = visit.open("/?from=now-2d&to=now-3h")
    page.evaluate(
        """async () => {
            const rows = document.getElementById('rows'), until = performance.now() + 60000;
            while (!document.getElementById('foot').textContent.includes('No older') && performance.now() < until) {
                rows.scrollTop = rows.scrollHeight;
                await new Promise(requestAnimationFrame);
            }
        }"""
    )
    press(page, "End")
    page.locator(f".row[aria-posinset='{many}']").wait_for()
    assert page.locator(".row").count() < 120
    assert page.locator("*").count() < 2000
    assert messages(page)[-1] == "line 0"
    press(page, "Home")
    page.locator(".row[aria-posinset='1']").wait_for()
    assert messages(page)[0] == f"line {many - 1}"


def test_the_focus_is_never_on_another_line_than_before(visit):
    page = visit.open()
    press(page, "j", "j", "j")
    assert focused(page) == "3"
    page.set_viewport_size({"width": 320, "height": 640})
    page.set_viewport_size({"width": 1280, "height": 800})
    page.locator("#rows").evaluate("rows => { rows.scrollTop = 3000 }")
    page.locator(".row[aria-posinset='160']").wait_for()
    assert focused(page) == "3"
    page.fill("#q", "level:warn")
    press(page, "Enter")
    until(page, "document.querySelector('#total').textContent === '44 records'")
    press(page, "Escape", "j")
    assert focused(page) == "1"
    page.evaluate("history.back()")
    until(page, f"document.querySelector('#total').textContent === '{SEEDED} records'")
    assert focused(page) is None


def test_rows_that_come_into_sight_take_the_elements_of_those_that_have_left_it(visit, many):
    page = visit.open("/?from=now-2d&to=now-3h")
    for first in (500, 100, 140):
        page.evaluate("document.querySelectorAll('.row').forEach((row) => { row.known = true })")
        page.locator("#rows").evaluate("(rows, first) => { rows.scrollTop = 20 * first }", first)
        page.locator(f".row[aria-posinset='{first + 1}']").wait_for()
        in_sight = page.locator("#rows").evaluate(
            """(rows) => {
                const { top, bottom } = rows.getBoundingClientRect();
                const inside = ({ y }) => y >= top && y < bottom;
                return [...rows.querySelectorAll('.row')].filter((row) => inside(row.getBoundingClientRect()))
                    .map((row) => [row.ariaPosInSet, row.querySelector('.text').textContent, row.known === true]);
            }"""
        )
        assert len(in_sight) > 20
        places = range(first, first + len(in_sight))
        assert [each[:2] for each in in_sight] == [[str(place + 1), f"line {many - 1 - place}"] for place in places]
        assert sum(known for *_, known in in_sight) >= len(in_sight) - 1


def test_lines_that_are_marked_and_out_of_sight_are_copied_too(browser, server, many):
    with reading(browser, server.url, permissions=["clipboard-read", "clipboard-write"]) as visit:
        page = visit.open("/?from=now-2d&to=now-3h")
        page.locator(".row .text").first.evaluate("text => getSelection().setBaseAndExtent(text, 0, text, 1)")
        page.locator("#rows").evaluate("rows => { rows.scrollTop = 2400 }")
        page.locator(".row[aria-posinset='130'] .text").evaluate("text => getSelection().extend(text, 1)")
        page.keyboard.press("Control+c")
        lines = page.evaluate("navigator.clipboard.readText()").splitlines()
    assert [line.split("  ")[1] for line in lines] == [f"line {many - 1 - place}" for place in range(130)]


@pytest.mark.parametrize(("name", "count"), [("NDJSON", 20), ("CSV", 21)])
def test_all_that_a_search_selects_is_exported(visit, name, count):
    page = visit.open("/?q=level%3Aerror&panel=export")
    page.locator("#total", has_text="20 records").wait_for()
    with page.expect_download() as download:
        page.click(f"#panel button:has-text('{name}')")
    lines = Path(download.value.path()).read_text(encoding="utf-8").splitlines()
    assert len(lines) == count
    page.locator("#panel [role=status]", has_text="20 records").wait_for()


def test_an_export_tells_how_far_it_is(visit, many):
    page = visit.open("/?from=now-2d&to=now-3h&panel=export")
    page.locator("#total", has_text=f"{many:,} records").wait_for()
    page.evaluate(
        """() => {
            window.told = [];
            const said = document.querySelector('#panel [role=status]');
            const bar = document.querySelector('progress');
            new MutationObserver(() => told.push([said.textContent, bar.value])).observe(said, { childList: true });
        }"""
    )
    with page.expect_download(timeout=4 * PATIENCE_MS):
        page.click("#panel button:has-text('CSV')")
    page.locator("#panel [role=status]", has_text="saved").wait_for()
    *told, (last, _) = page.evaluate("told")
    assert last.startswith(f"{many:,} records, ")
    assert len(told) > 1
    found = [re.match(rf"([\d,]+) of {many:,} records \((\d+) %\), [\d.]+\S+$", text) for text, _ in told]
    assert all(int(each[2]) == 100 * int(each[1].replace(",", "")) // many for each in found)
    values = [value for _, value in told]
    assert values == sorted(values)
    assert values[0] < many


def test_an_export_that_is_not_counted_tells_how_many_and_how_much(visit):
    refuse(visit.page, "**/logs/histogram?**")
    page = visit.open("/?q=level%3Aerror&panel=export")
    page.evaluate(
        """() => {
            window.told = [];
            const said = document.querySelector('#panel [role=status]');
            new MutationObserver(() => told.push(said.textContent)).observe(said, { childList: true });
        }"""
    )
    with page.expect_download():
        page.click("#panel button:has-text('NDJSON')")
    page.locator("#panel [role=status]", has_text="saved").wait_for()
    assert re.match(r"20 records, [\d.]+\S+$", page.evaluate("told").pop(-2))
    assert page.get_attribute("progress", "value") is None


def test_an_export_can_be_cancelled(visit):
    page = visit.open("/?panel=export")
    page.route("**/logs?**", lambda route: None)
    page.click("#panel button:has-text('NDJSON')")
    page.click("#panel button:has-text('Cancel')")
    page.locator("#panel [role=status]", has_text="nothing was saved").wait_for()


# Live


@pytest.fixture
def live(browser, servers, directory, request):
    """A server of this test alone, and a reader who follows."""
    name = f"live-{abs(hash(request.node.name)) % 10**6}"
    log = directory / f"{name}.log"
    with running("--port=0", *options(servers, directory, name), log=log) as started:
        send(started, [record(i) for i in range(100)])
        eventually(lambda: started.get("/ledger")["total"]["stored"] == 100, "all is stored")
        with reading(browser, started.url) as visit:
            page = visit.open("/?live=1")
            page.locator("#live[data-state=on]").wait_for()
            yield started, page


def test_a_tail_follows_at_the_top_and_never_moves_under_the_reader(live):
    server, page = live
    send(server, [{"message": "first", "level": "info"}])
    page.locator(".row", has_text="first").wait_for()
    assert messages(page)[0] == "first"
    page.locator(".row .mark[title=stored]").wait_for()
    page.locator("#rows").evaluate("rows => { rows.scrollTop = 400 }")
    until(page, "document.querySelector('.row').offsetTop > -1")
    page.wait_for_timeout(50)
    seen = page.locator("#rows").evaluate("rows => rows.scrollTop")
    send(server, [{"message": f"later {i}"} for i in range(37)])
    page.locator("#new", has_text="37 new").wait_for()
    assert page.locator("#rows").evaluate("rows => rows.scrollTop") == seen
    page.click("#new")
    page.locator(".row", has_text="later 36").wait_for()
    assert messages(page)[:2] == ["later 36", "later 35"]
    assert page.is_hidden("#new")


def test_what_arrives_is_shown_ten_times_a_second(browser, server):
    """At a thousand records a second the page would do nothing else."""
    with reading(browser, server.url) as visit:
        visit.page.clock.install()
        page = visit.open("/?live=1")
        page.locator("#live[data-state=on]").wait_for()
        page.clock.pause_at(datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=1))
        page.evaluate(
            "new MutationObserver(() => { window.moved = (window.moved ?? 0) + 1 })"
            ".observe(document.getElementById('list'), { childList: true, characterData: true, subtree: true })"
        )
        for number in range(20):
            server.post("/add-job?ack=stored", json.dumps({"message": f"beat {number}"}).encode())
            page.clock.run_for(20)
        tenths = 4
        while not page.locator(".row", has_text="beat 19").is_visible():
            page.clock.run_for(100)
            tenths += 1
            assert tenths < 100
        assert 1 <= page.evaluate("window.moved") <= tenths + 1
        page.clock.resume()


def test_a_record_is_shown_as_queued_and_confirmed_when_it_is_stored(browser, servers, directory):
    more = [*options(servers, directory, "queued"), "--flush_interval_ms=3600000"]
    with (
        running("--port=0", *more, log=directory / "queued.log") as server,
        reading(browser, server.url) as visit,
    ):
        page = visit.open("/?live=1")
        page.locator("#live[data-state=on]").wait_for()
        assert "Nothing is stored yet" in page.inner_text("#empty")
        assert f"{server.url}/add-job" in page.inner_text("#empty pre")
        server.post("/add-job", b'{"message":"waits"}')
        page.locator(".row .mark[title^='queued']").wait_for()
        assert page.is_hidden("#empty")
        counts = "received 1 stored 0 queued 1 quarantined 0 refused 0 ✓ balanced"
        until(page, f"document.querySelector('#ledger').innerText.replace(/\\s+/g, ' ') === '{counts}'")
        server.post("/add-job?ack=stored", b'{"message":"hurries"}')
        # The second one may be stored before it is shown at all: then it has no mark.
        page.locator(".row", has_text="hurries").wait_for()
        page.locator(".row", has_text="waits").locator(".mark[title=stored]").wait_for()
        page.locator(".row .mark[title^='queued']").wait_for(state="detached")


def test_what_arrives_while_the_first_search_runs_stays(browser, servers, directory):
    more = [*options(servers, directory, "early"), "--flush_interval_ms=3600000"]
    with (
        running("--port=0", *more, log=directory / "early.log") as server,
        reading(browser, server.url) as visit,
    ):
        page, held = visit.page, []
        page.route(re.compile(r"/logs\?"), lambda search: held.append(search), times=1)
        page.goto(f"{server.url}/?live=1")
        page.locator("#live[data-state=on]").wait_for()
        server.post("/add-job", b'{"message":"early"}')
        page.locator(".row", has_text="early").wait_for()
        (search,) = held
        search.continue_()
        visit.settled()
        assert page.locator(".row", has_text="early").is_visible()
        assert page.is_hidden("#empty")


def test_how_many_lines_are_missed_is_told_if_it_is_known(browser, server):
    """The stream of a server that has left some out, which a real one does not with so few."""
    events = "".join(f'event: missed\ndata: {{"missed":{count}}}\n\n' for count in ("7", "null"))
    with reading(browser, server.url) as visit:
        answer = {"status": 200, "content_type": "text/event-stream", "body": events}
        visit.page.route("**/logs/tail?**", lambda route: route.fulfill(**answer), times=1)
        page = visit.open("/?live=1")
        page.locator(".row.gap").nth(1).wait_for()
        found = page.locator(".row.gap").all_inner_texts()
        assert sorted(text.partition(" not ")[0] for text in found) == ["7 lines are", "Some lines are"]


def test_a_wrong_query_is_followed_no_more_until_it_is_another(visit):
    visit.page.clock.install()
    page = visit.open("/?live=1&q=level%3Aerror+AND+%28cart")
    page.clock.run_for(2000)
    page.locator("#live[data-state=wrong]").wait_for()
    assert "Column 17" in page.inner_text("#wrong")
    asked = len(visit.asked)
    page.clock.run_for(60_000)
    page.wait_for_timeout(100)
    assert [url for url in visit.asked[asked:] if "tail" in url] == []
    page.click("#wrong button")
    page.locator("#live[data-state=on]").wait_for()
    assert page.is_hidden("#wrong")


def test_a_tail_goes_on_after_the_server_was_stopped_and_started(browser, servers, directory):
    more, log = options(servers, directory, "again"), directory / "again.log"
    with running("--port=0", *more, log=log) as first:
        port = first.url.rsplit(":", 1)[1]
        reader = Visit(browser, first.url)
        page = reader.open("/?live=1")
        page.locator("#live[data-state=on]").wait_for()
        first.post("/add-job", b'{"message":"before"}')
        page.locator(".row", has_text="before").wait_for()
        assert first.stop() == 0
    page.locator("#live[data-state=lost]").wait_for()
    page.locator("#notice", has_text="does not answer since").wait_for()
    with running(f"--port={port}", *more, log=log) as second:
        second.post("/add-job", b'{"message":"meanwhile"}')
        page.locator(".row", has_text="meanwhile").wait_for()
        page.locator("#live[data-state=on]").wait_for()
        page.locator("#notice").wait_for(state="hidden")
        assert sorted(messages(page)) == ["before", "meanwhile"]
        reader.done()


# The ledger, the quarantine


def test_the_quarantine_replays_and_deletes(browser, servers, directory):
    with (
        running("--port=0", *options(servers, directory, "bad"), log=directory / "bad.log") as server,
        reading(browser, server.url) as visit,
    ):
        body = b'{"message":"good"}\n{"message":"broken\n{"also":broken\n'
        server.post("/add-jobs?ack=stored", body, **{"Content-Type": "application/x-ndjson"})
        page = visit.open()
        page.click("#ledger button:has-text('quarantined 2')")
        page.locator("article").nth(1).wait_for()
        assert page.is_visible("#rows .row")
        article = page.locator("article", has=page.locator("textarea")).first
        article.locator("textarea").fill('{"message":"mended"}')
        article.locator("text=Replay").click()
        page.locator("article", has_text="✓ Stored").wait_for()
        left = page.locator("article", has_text="Delete")
        left.locator("text=Replay").click()
        left.locator("[role=status]:not(:empty)").wait_for()
        left.locator("button:text('Delete')").click()
        left.locator("button:text('Delete for ever')").click()
        page.locator("article", has_text="Deleted").wait_for()
        assert server.get("/quarantine") == []
        assert "mended" in json.dumps(server.get("/logs"))


def test_a_record_that_mongodb_refused_is_corrected_and_replayed(browser, servers, directory):
    named = options(servers, directory, "refused")
    with (
        running("--port=0", *named, log=directory / "refused.log") as server,
        reading(browser, server.url) as visit,
        pymongo.MongoClient(servers.mongo_url) as client,
    ):
        server.post("/add-job?ack=stored", b'{"n":1}')
        rule = {"$jsonSchema": {"properties": {"data": {"properties": {"n": {"minimum": 0}}}}}}
        client[named[1].partition("=")[2]].command({"collMod": "logs", "validator": rule})
        refused = server.post("/add-job?ack=stored", b'{"n":-1,"span":1795349095001000001}')["id"]
        page = visit.open("/?panel=quarantine")
        article = page.locator("article")
        assert json.loads(article.locator("pre").inner_text()) == {"n": -1, "span": 1795349095001000001}
        assert article.locator("textarea").is_hidden()
        article.locator("text=Replay").click()
        article.locator("[role=status]", has_text="refused again").wait_for()
        article.locator("text=Correct").click()
        box = article.locator("textarea")
        box.fill(box.input_value().replace("-1", "7"))
        article.locator("text=Replay").click()
        page.locator("article", has_text="✓ Stored").wait_for()
        assert server.get("/quarantine") == []
        stored = server.get("/logs")[0]
        assert (stored["_id"], stored["data"]) == (refused, {"n": 7, "span": 1795349095001000001})


def test_mongodb_away_is_told_with_since_when_and_that_new_records_are_safe(browser, own_servers, tmp_path):
    more = options(own_servers, tmp_path, "away")
    with (
        running("--port=0", *more, "--query_timeout=2s", log=tmp_path / "away.log") as server,
        reading(browser, server.url) as visit,
    ):
        send(server, [{"message": "before"}])
        eventually(lambda: server.get("/ledger")["total"]["stored"] == 1, "it is stored")
        page = visit.open()
        own_servers.kill(own_servers.mongo)
        server.post("/add-job", b'{"message":"kept"}')
        page.locator("#notice", has_text="MongoDB is away since").wait_for()
        page.locator("#notice", has_text="safe in the queue").wait_for()
        own_servers.start(own_servers.mongo)
        page.locator("#notice").wait_for(state="hidden")


# Who may


def test_a_server_with_tokens_lets_sign_in_and_out(browser, servers, directory):
    with (
        running("--port=0", *with_token(servers, directory, "tokens"), log=directory / "tokens.log") as server,
        reading(browser, server.url) as visit,
    ):
        server.post("/add-job?ack=stored", b'{"message":"for me"}', Authorization="Bearer secret")
        page = visit.page
        page.goto(server.url)
        page.locator("#sign-in").wait_for()
        page.keyboard.type("wrong")
        page.keyboard.press("Enter")
        page.locator("#sign-in-wrong:not(:empty)").wait_for()
        page.keyboard.type("secret")
        page.keyboard.press("Enter")
        page.locator(".row", has_text="for me").wait_for()
        assert page.inner_text("#who") == "Sign out me"
        page.click("#who")
        page.locator("#sign-in").wait_for()


def with_token(servers, directory, name, more=""):
    """Options of a server that asks for the token "secret"."""
    tokens = directory / f"{name}.toml"
    digest = hashlib.sha256(b"secret").hexdigest()
    tokens.write_text(f'[[token]]\nname = "me"\nsha256 = "{digest}"\nscopes = ["read", "write", "admin"]\n{more}\n')
    return [*options(servers, directory, name), f"--tokens_file={tokens}"]


def test_who_may_see_one_tenant_is_shown_its_part_of_the_ledger(browser, servers, directory):
    given = with_token(servers, directory, "tenant", 'tenant = "acme"')
    with (
        running("--port=0", *given, log=directory / "tenant.log") as server,
        reading(browser, server.url) as visit,
    ):
        server.post("/add-job?ack=stored", b'{"message":"for acme"}', Authorization="Bearer secret")
        page = visit.page
        page.goto(server.url)
        page.locator("#sign-in").wait_for()
        page.keyboard.type("secret")
        page.keyboard.press("Enter")
        page.locator(".row", has_text="for acme").wait_for()
        page.locator("#ledger", has_text="stored 1").wait_for()
        # What is of all tenants it is not told: neither that nor its absence is a fault.
        assert page.inner_text("#balance") == ""
        assert page.is_hidden("#notice")


# The keyboard


def test_escape_leaves_the_search_bar_with_what_is_in_it(visit):
    page = visit.open()
    press(page, "/")
    page.keyboard.type("level:warn")
    press(page, "Escape")
    assert page.input_value("#q") == "level:warn"
    assert page.evaluate("document.activeElement.id") != "q"


def test_a_line_in_focus_is_opened_by_the_space_key_too_which_else_scrolls(visit):
    page = visit.open("/?keys=off")
    press(page, "ArrowDown", " ")
    page.locator(".row.open[aria-posinset='1']").wait_for()
    press(page, " ")
    page.locator(".row.open").wait_for(state="detached")
    page.focus("#rows")
    press(page, " ")
    until(page, "document.getElementById('rows').scrollTop > 0")
    assert page.locator(".row.open").count() == 0


def focused(page):
    return page.evaluate("document.activeElement.closest('.row')?.getAttribute('aria-posinset')")


def test_everything_goes_by_the_keyboard(visit):
    page = visit.open()
    page.locator("#names summary").first.wait_for()
    press(page, "/")
    page.keyboard.type("level:warn")
    press(page, "Enter")
    page.wait_for_url("**q=level**")
    visit.settled()
    press(page, "Escape", "j", "j", "k")
    assert focused(page) == "1"
    press(page, "j", "Enter")
    page.locator(".row.open[aria-posinset='2']").wait_for()
    press(page, "f")
    while "service" not in page.evaluate("document.activeElement.textContent"):
        press(page, "j")
    press(page, "f")
    page.wait_for_url("**service**")
    visit.settled()
    assert visit.state["q"].startswith("level:warn AND service:")
    press(page, "j", "x", "x")
    page.wait_for_url("**NOT**")
    visit.settled()
    press(page, "?")
    page.locator("#panel", has_text="exclude").wait_for()
    press(page, "Escape")
    page.locator("#panel").wait_for(state="hidden")
    press(page, "l")
    page.locator("#live[data-state=on]").wait_for()
    press(page, "l")
    page.locator("#live[data-state='']").wait_for()


# How it looks


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser, server, scheme):
    axe = Path(os.environ.get("LOGSRV_TEST_NODE_MODULES", ""), "axe-core", "axe.min.js")
    needed("axe-core (LOGSRV_TEST_NODE_MODULES)", axe.is_file())
    found = []
    with reading(browser, server.url, color_scheme=scheme, bypass_csp=True) as visit:
        for path in ("/?panel=help", "/?panel=export&live=1", "/?q=nothing", "/?q=%28", "/?panel=quarantine"):
            page = visit.open(path)
            if page.locator(".row").count():
                page.locator(".row .time").nth(2).click()
                page.locator(".row.open .pair").first.wait_for()
            page.evaluate(axe.read_text(encoding="utf-8"))
            for each in page.evaluate("axe.run().then(found => found.violations)"):
                nodes = [(node["html"][:200], node["failureSummary"][:300]) for node in each["nodes"][:3]]
                found.append((path, each["id"], each["impact"], nodes))
    assert found == []


def test_dark_and_light_go_by_the_system(browser, server):
    papers = []
    for scheme in ("light", "dark"):
        with reading(browser, server.url, color_scheme=scheme) as visit:
            papers.append(visit.open().evaluate("getComputedStyle(document.documentElement).backgroundColor"))
    assert papers == ["rgb(255, 255, 255)", "rgb(17, 20, 23)"]


def test_who_wants_little_motion_gets_none(browser, server):
    with reading(browser, server.url, reduced_motion="reduce") as visit:
        moving = visit.open("/?panel=help&live=1").evaluate(
            """() => [...document.querySelectorAll('*')].filter((each) => {
                const { transitionDuration, animationName, scrollBehavior } = getComputedStyle(each);
                return transitionDuration !== '0s' || animationName !== 'none' || scrollBehavior !== 'auto';
            }).map((each) => each.outerHTML)"""
        )
    assert moving == []


@pytest.mark.parametrize("width", [320, 3840])
def test_it_fits_a_phone_and_a_wall(browser, server, width):
    with reading(browser, server.url, viewport={"width": width, "height": 640}) as visit:
        page = visit.open()
        for path in ("/", "/?panel=help", "/?panel=quarantine", "/?panel=fields"):
            page = visit.open(path) if path == "/" else page
            page.goto(server.url + path)
            page.locator("#total:not(:empty)").wait_for()
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.goto(server.url)
        page.click("#range")
        menu = page.locator("#ranges").bounding_box()
        assert 0 <= menu["x"] <= menu["x"] + menu["width"] <= width
        page.keyboard.press("Escape")
        page.locator(".row .text").first.click()
        page.locator(".row.open .pair").first.wait_for()
        assert page.evaluate("document.getElementById('rows').scrollWidth") <= width
