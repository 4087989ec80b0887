"""TLS: the server's certificate, and those of its clients."""

import logging
import ssl

from .config import Options
from .errors import StartError

log = logging.getLogger("logsrv.tls")

_CLIENTS = {"optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}


class Certificates:
    """What the options name, read again without a connection being dropped: each new one takes what is there then."""

    def __init__(self, options: Options) -> None:
        """Raises StartError when a file cannot be read, or the key is not that of the certificate."""
        self._options = options
        self._newest = self._read()
        #: For the HTTP server, as long as it lives.
        self.context = self._read()
        # Called at the beginning of each handshake, whether or not the client names a server.
        self.context.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        connection.context = self._newest

    def reload(self) -> None:
        """Read the files again. Raises StartError; what was read before then stays."""
        self._newest = self._read()
        log.info("the certificate is read from %s", self._options.tls_cert)

    def _read(self) -> ssl.SSLContext:
        options = self._options
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # A connection that is resumed is one whose client's certificate is not looked at again.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        try:
            context.load_cert_chain(options.tls_cert, options.tls_key or None, password=_no_password)
        except (OSError, ValueError) as error:
            raise StartError(f"--tls_cert: {options.tls_cert}, {options.tls_key}: {_reason(error)}") from None
        if options.tls_client_ca:
            try:
                context.load_verify_locations(options.tls_client_ca)
            except (OSError, ValueError) as error:
                raise StartError(f"--tls_client_ca: {options.tls_client_ca}: {_reason(error)}") from None
            context.verify_mode = _CLIENTS[options.tls_client_auth]
        return context


def certificates(options: Options) -> Certificates | None:
    """Those that the options name; None when the server speaks HTTP without TLS. Raises StartError."""
    if options.tls_cert:
        return Certificates(options)
    for name in ("tls_key", "tls_client_ca"):
        if getattr(options, name):
            raise StartError(f"--{name}: needs --tls_cert, too")
    return None


def _no_password() -> str:
    raise ValueError("the key is encrypted; give one that is not, readable by this server alone")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
