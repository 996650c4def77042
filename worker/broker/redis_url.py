"""Reads REDIS_URL: one server, the sentinels that know the primary, or nodes of a cluster."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import SplitResult, unquote, urlsplit

_NAMES = "redis", "rediss", "valkey", "valkeys"


class Topology(Enum):
    """What REDIS_URL names; the value is how its scheme ends."""

    SERVER = ""
    SENTINEL = "+sentinel"
    CLUSTER = "+cluster"


_SCHEMES = {f"{name}{topology.value}": topology for topology in Topology for name in _NAMES}
_DEFAULT_PORTS = {Topology.SERVER: 6379, Topology.SENTINEL: 26379, Topology.CLUSTER: 6379}


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """The parts of REDIS_URL.

    Attributes:
        topology: what the hosts are.
        is_tls: whether all connections use TLS, those to sentinels too.
        hosts: host and port of the server, of the sentinels, or of some nodes of the cluster.
        master_name: the name by which the sentinels know the primary; empty without sentinels.
        database: the number of the database.
        username: the user of the server; never that of sentinels.
        password: that user's.
    """

    topology: Topology
    is_tls: bool
    hosts: tuple[tuple[str, int], ...]
    master_name: str
    database: int
    username: str | None = field(repr=False)
    password: str | None = field(repr=False)

    @property
    def is_sentinel(self) -> bool:
        """True if the hosts are sentinels."""
        return self.topology is Topology.SENTINEL

    @property
    def is_cluster(self) -> bool:
        """True if the hosts are nodes of a cluster."""
        return self.topology is Topology.CLUSTER

    @property
    def public(self) -> str:
        """The URL without user and password, for people. It shows whether TLS is used."""
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        path = {
            Topology.SERVER: f"/{self.database}",
            Topology.SENTINEL: f"/{self.master_name}/{self.database}",
            Topology.CLUSTER: "",
        }
        name = "rediss" if self.is_tls else "redis"
        return f"{name}{self.topology.value}://{hosts}{path[self.topology]}"


def parse(url: str) -> RedisUrl:
    """Return the parts of a URL.

    Raises:
        ValueError: it cannot be used; the text says why, as the end of a sentence, and holds no password.
    """
    # urlsplit drops line breaks and tabs from the middle of a URL; other readers may not.
    if not url.isprintable() or " " in url:
        raise ValueError("is not a URL: it holds a blank or a control character")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise _unreadable() from None
    topology = _SCHEMES.get(parts.scheme)
    if topology is None:
        raise ValueError(
            "must start with redis://, rediss://, valkey:// or valkeys://; redis+sentinel:// with Sentinel, "
            "redis+cluster:// with Redis Cluster"
        )
    if "@" in parts.path + parts.query + parts.fragment:  # then what looks like a host is part of the password
        raise _unreadable()
    user, _, after = parts.netloc.rpartition("@")
    hosts = _hosts(after, topology)
    if "?" in url or "#" in url:
        raise ValueError("must hold no query or fragment; use REDIS_CA_FILE for an own certificate authority")
    username, _, password = user.partition(":")
    master_name, database = _PATHS[topology](parts.path)
    return RedisUrl(
        topology=topology,
        is_tls=parts.scheme.removesuffix(topology.value) in {"rediss", "valkeys"},
        hosts=hosts,
        master_name=master_name,
        database=database,
        username=unquote(username) or None,
        password=unquote(password) or None,
    )


def _unreadable() -> ValueError:
    return ValueError(
        "is not a URL: its host or port cannot be read; write special characters in a password percent-encoded"
    )


def _hosts(text: str, topology: Topology) -> tuple[tuple[str, int], ...]:
    hosts = text.split(",")
    if topology is Topology.SERVER and len(hosts) > 1:
        raise ValueError(
            "names several hosts: start it with redis+sentinel:// if they are sentinels, or with redis+cluster:// if "
            "they are nodes of a cluster"
        )
    return tuple(_host(one, _DEFAULT_PORTS[topology]) for one in hosts)


def _host(text: str, default_port: int) -> tuple[str, int]:
    try:
        parts: SplitResult = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
        (host or "").encode("idna")  # else resolving it fails with an unexpected error
    except ValueError:
        raise _unreadable() from None
    if not host:
        raise ValueError("names no host")
    if port == 0:
        raise ValueError("must name a port from 1 to 65535, or none")
    return host, port or default_port


def _path_of_a_server(path: str) -> tuple[str, int]:
    if not re.fullmatch("(/[0-9]{0,6})?", path):
        raise ValueError("must end in a database number such as /0, or in nothing")
    return "", int(path.strip("/") or 0)


def _path_of_sentinels(path: str) -> tuple[str, int]:
    match = re.fullmatch("/([^/]+)(?:/([0-9]{0,6}))?", path)
    if match is None:
        raise ValueError(
            "must end in the name by which the sentinels know the primary, and perhaps a database number: "
            "redis+sentinel://sentinel-1,sentinel-2,sentinel-3/mymaster/0"
        )
    return unquote(match[1]), int(match[2] or 0)


def _path_of_a_cluster(path: str) -> tuple[str, int]:
    if path not in {"", "/", "/0"}:
        raise ValueError("must end in its hosts, because a cluster has no databases")
    return "", 0


_PATHS = {
    Topology.SERVER: _path_of_a_server,
    Topology.SENTINEL: _path_of_sentinels,
    Topology.CLUSTER: _path_of_a_cluster,
}
