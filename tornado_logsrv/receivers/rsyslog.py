"""rsyslog, which has no name of its own in what it sends, as others do: told by what libcurl and its outputs write.

Sources: curlPostSetup of plugins/omelasticsearch/omelasticsearch.c, buildCurlHeaders of contrib/omhttp/omhttp.c.
"""

from tornado.httputil import HTTPServerRequest

#: What omelasticsearch and omhttp (``jsonarray``, ``lokirest``) call what they send; and omhttp with ``newline``.
_TYPES = frozenset(("application/json; charset=utf-8", "text/plain"))


def is_rsyslog(request: HTTPServerRequest) -> bool:
    """Whether a request is rsyslog's.

    .NET's client has no name either, and the first of these media types, but does not say what it accepts.
    """
    headers = request.headers
    return "User-Agent" not in headers and headers.get("Accept") == "*/*" and headers.get("Content-Type", "") in _TYPES
