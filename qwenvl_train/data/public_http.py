"""Opens files at http:// and https://, unless they are in a private network. Rows choose the address, and must not
reach what only this machine can reach. Posts requests to servers that the user has named.

The check is made on the IP address that is connected to, so that neither a redirect nor a name's changing answers get
past it.
"""

import http.client
import socket
import ssl
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from threading import Timer
from typing import Any
from urllib.parse import quote, urlsplit

_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
"""The IPv6 addresses that stand for an IPv4 address, which is their last 32 bits."""


@contextmanager
def opened(address: str, allow_private: bool, silence: float, longest: float) -> Iterator[http.client.HTTPResponse]:
    """Yield the answer of the server at an address.

    Args:
        allow_private: Whether the server may be this machine, or one in a private network.
        silence: The seconds that the server may leave a read waiting.
        longest: The seconds until the block must have ended. Its reads then return no more, and leaving the block
            raises TimeoutError.
    """
    handler = _Handler(allow_private)
    opener = _opener(
        urllib.request.ProxyHandler(), handler, urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPDefaultErrorHandler(), urllib.request.HTTPErrorProcessor(),
    )  # fmt: skip
    # As in a browser, spaces and non-ASCII letters are escaped, and existing escapes are kept.
    escaped = quote(address, safe="%/:=&?~#+!$,;'@()*[]")
    request = urllib.request.Request(escaped, headers={"User-Agent": "qwenvl-train"})
    with _ended_after(longest, handler), opener.open(request, timeout=silence) as answer:
        yield answer


@contextmanager
def posted(
    address: str, body: bytes, headers: Mapping[str, str], longest: float, proxied: bool
) -> Iterator[http.client.HTTPResponse]:
    """Yield what the server at an address answers to a POST request, whatever its status. Redirects are not followed.

    The user has named the server, so that it may be this machine.

    Args:
        longest: The seconds until the block must have ended, as for `opened`.
        proxied: Whether the request goes through the proxy that the environment names, if it names one.
    """
    handler = _Handler(allow_private=True)
    opener = _opener(urllib.request.ProxyHandler(None if proxied else {}), handler)
    request = urllib.request.Request(address, body, {"User-Agent": "qwenvl-train", **headers})
    with _ended_after(longest, handler), opener.open(request, timeout=longest) as answer:
        yield answer


def _opener(*parts: urllib.request.BaseHandler) -> urllib.request.OpenerDirector:
    """Return an opener without the handlers for ftp:// and file://, to which a server could redirect."""
    opener = urllib.request.OpenerDirector()
    for part in (*parts, urllib.request.UnknownHandler()):
        opener.add_handler(part)
    return opener


@contextmanager
def _ended_after(longest: float, handler: "_Handler") -> Iterator[None]:
    """End the connections of the block after some seconds, since a server that sends a byte now and then would never
    reach the time limit of a read."""
    timer = Timer(longest, handler.end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception as error:
        if handler.ended:
            raise _too_slow(longest) from error
        raise
    finally:
        timer.cancel()
    if handler.ended:
        raise _too_slow(longest)


def _too_slow(longest: float) -> TimeoutError:
    return TimeoutError(f"it took longer than {longest:g} seconds")


class _Handler(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """Opens connections to allowed hosts, and can end them from another thread."""

    def __init__(self, allow_private: bool):
        super().__init__()
        self._allow_private = allow_private
        self._sockets: list[socket.socket] = []
        self.ended = False

    def end(self) -> None:
        self.ended = True
        for connected in self._sockets:
            with suppress(OSError):  # it was closed
                # The method of an SSLSocket would take its buffers away from the thread that reads.
                socket.socket.shutdown(connected, socket.SHUT_RDWR)

    def do_open(self, http_class: Any, req: urllib.request.Request, **arguments: Any) -> http.client.HTTPResponse:
        proxied = req.has_proxy() or getattr(req, "_tunnel_host", None)
        if proxied and not self._allow_private:
            # The user's proxy connects to the host, whose name may have no meaning here.
            with suppress(socket.gaierror):
                host = urlsplit(req.full_url).hostname or ""
                _public(_answers(host, None), host)

        def connection(*where: Any, **options: Any) -> http.client.HTTPConnection:
            made = http_class(*where, **options)
            connect = made.connect if proxied else lambda: self._connect(made)

            def connect_and_remember() -> None:
                connect()
                self._sockets.append(made.sock)
                if self.ended:
                    raise TimeoutError

            made.connect = connect_and_remember
            return made

        return super().do_open(connection, req, **arguments)

    def _connect(self, connection: http.client.HTTPConnection) -> None:
        """Connect to the host of a connection by an IP address that was checked."""
        addresses = _answers(connection.host, connection.port)
        if not self._allow_private:
            addresses = _public(addresses, connection.host)
        for number, address in enumerate(addresses, start=1):
            try:
                connection.sock = socket.create_connection((address, connection.port), connection.timeout)
                break
            except OSError:
                if number == len(addresses):
                    raise
        if isinstance(connection, http.client.HTTPSConnection):
            context = ssl.create_default_context()
            connection.sock = context.wrap_socket(connection.sock, server_hostname=connection.host)


def _answers(name: str, port: int | None) -> list[str]:
    """Return the IP addresses of a host."""
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(place[0]) for *_, place in found))


def _public(addresses: list[str], name: str) -> list[str]:
    """Return the addresses that are public. Raise ValueError if there are only others."""
    if public := [address for address in addresses if is_public(address)]:
        return public
    raise ValueError(
        f"{name} is at {addresses[0]}, which is this machine or in a private network; set data.allow_remote=private "
        "if rows may reach it"
    )


def is_public(address: str) -> bool:
    """Return whether an IP address is one of the internet's, and not of this machine, a private network, a link or a
    group of hosts."""
    ip: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address):
        inner = IPv4Address(int(ip) % 2**32) if ip in _NAT64 else ip.ipv4_mapped or ip.sixtofour
        if inner is None and (ip.teredo or ip not in _GLOBAL_UNICAST):
            return False
        ip = inner or ip
    return ip.is_global and not ip.is_multicast
