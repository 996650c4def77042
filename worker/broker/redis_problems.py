"""What can be wrong with Redis, in words for an operator: one table for the worker and the commands.

A worker waits and goes on by itself, and an operator reads its log later; a command has an operator in front of it.
Where the two need different advice, a problem has both.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

#: The oldest version: Redis 7 brought the script flags that let a full server drain.
OLDEST_MAJOR = 7


@dataclass(frozen=True, slots=True)
class Unfit:
    """A problem that waiting does not fix, and advice; ``for_commands`` is the advice where a command hits it."""

    problem: str
    advice: str
    for_commands: str = field(default="", kw_only=True)


@dataclass(frozen=True, slots=True)
class Passing:
    """A problem that may pass, and advice if it does not; ``for_commands`` is the advice where a command hits it."""

    problem: str
    advice: str
    for_commands: str = field(default="", kw_only=True)


Meaning: TypeAlias = Unfit | Passing


_NOT_THE_COMMANDS = "Redis 7 or newer, or Valkey, is needed, with no command renamed."

_NAME_THE_CLUSTER = (
    "Let REDIS_URL start with redis+cluster:// and name nodes of the cluster, and give LOCK_QUEUE a hash tag such as "
    "{moderation}.lock; or let REDIS_URL name a single server."
)
#: A node of a cluster, found where REDIS_URL names a single server.
IS_A_CLUSTER = Unfit(
    "REDIS_URL names a single server, and there is a node of a Redis Cluster, which holds only some of the keys.",
    _NAME_THE_CLUSTER,
)
#: A single server, found where REDIS_URL names a cluster.
NOT_A_CLUSTER = Unfit(
    "REDIS_URL names a Redis Cluster, and there is a server that is no node of a cluster.",
    "Let REDIS_URL start with redis:// or rediss:// if there is a single server, or with redis+sentinel:// if the "
    "hosts are sentinels; else correct the hosts.",
)
NO_CLUSTER_KEYS = Unfit(
    "The server, or a proxy before it, spreads keys over several servers (CROSSSLOT), and a job moves in one atomic "
    "step on one of them.",
    _NAME_THE_CLUSTER,
)
NO_SENTINELS = Unfit(
    "The hosts in REDIS_URL are no sentinels.",
    "Let REDIS_URL start with redis:// or rediss:// if there is a single server, or correct the hosts; the port of a "
    "sentinel is 26379 by default.",
)
WRONG_SENTINEL_PASSWORD = Unfit(
    "The sentinels do not accept the password, or do not permit SENTINEL MASTERS.",
    "Correct SENTINEL_PASSWORD; the password in REDIS_URL is that of the server behind them.",
)
SLOT_MOVES = Passing(
    "The keys are at another node of the Redis Cluster, or are being moved there.",
    "Wait; if it does not end, look whether a move of slots was left half-way (redis-cli --cluster check).",
    for_commands="The keys are at another node of a Redis Cluster, or are being moved there: try again in a moment.",
)
CLUSTER_DOWN = Passing(
    "The Redis Cluster does not serve the queue's keys: a node is down or a slot has none.",
    "Bring the node back, or let a replica take over; redis-cli --cluster check shows what is missing.",
)
NO_PRIMARY = Passing(
    "The sentinels have no primary now.",
    "Wait until the failover is over; if it does not end, ask a sentinel why (SENTINEL MASTERS, SENTINEL CKQUORUM).",
    for_commands="Try again when the failover is over; if that takes long, ask a sentinel why (SENTINEL CKQUORUM).",
)
NO_DATABASE = Unfit(
    "The server does not have the database that REDIS_URL names (a node of a Redis Cluster has database 0 alone).",
    "Use a database that it has (0 is always there), or raise `databases` on the server.",
    for_commands="Let REDIS_URL end in a database number that the server has, such as /0.",
)
NO_SCRIPTS = Unfit(
    "The server, or a proxy before it, does not run Lua scripts (EVAL, EVALSHA), by which jobs move.",
    "Enable EVAL and EVALSHA, or let REDIS_URL lead to the server itself.",
    for_commands=_NOT_THE_COMMANDS,
)
NO_SUCH_COMMAND = Unfit(
    "The server, or a proxy before it, does not know a command that is needed.",
    f"Let REDIS_URL lead to Redis {OLDEST_MAJOR} or newer, or Valkey, with no command renamed.",
    for_commands=_NOT_THE_COMMANDS,
)
TOO_OLD = Unfit(
    f"The server does not understand scripts with flags: it is older than Redis {OLDEST_MAJOR}.",
    f"Upgrade it to Redis {OLDEST_MAJOR} or newer, or Valkey, or let REDIS_URL name another one.",
    for_commands=_NOT_THE_COMMANDS,
)
WRONG_PASSWORD = Unfit(
    "Redis does not accept the user and password.",
    "Correct the user and password in REDIS_URL, or the server's user (ACL SETUSER).",
    for_commands="Look at the user and the password in REDIS_URL; characters such as @ and / in them are written as %40"
    " and %2F.",
)
NO_PASSWORD = Passing(
    "The file that REDIS_PASSWORD_FILE names holds no password that can be used.",
    "Put the password alone into that file, readable for the worker's user; it is read again for each connection.",
)
WRONG_PASSWORD_IN_FILE = Passing(
    "Redis does not accept the password in the file that REDIS_PASSWORD_FILE names.",
    "Put the password that is valid now into that file, which is read again for each connection, or give the server's"
    " user that password; look at the user in REDIS_URL too.",
)
NO_PERMISSION = Unfit(
    "The server's access control list forbids the worker's user what it needs.",
    "Give the user the rights that docs/redis.md lists.",
    for_commands="Give the user in REDIS_URL that permission; docs/redis.md lists all that are needed.",
)
PROTECTED = Unfit(
    "The server runs in protected mode: it takes no connections from other hosts.",
    "Give it a password, and write that into REDIS_URL.",
)
WRONG_TYPE = Unfit(
    "A key holds another kind of value than it should: another program uses that name.",
    "Give LOCK_QUEUE, RESULTS_CHANNEL or DEAD_STREAM another name, or the other program's key.",
    for_commands="Another program uses this key: give LOCK_QUEUE, RESULTS_CHANNEL or DEAD_STREAM another name.",
)
NO_REDIS = Unfit(
    "What answers at the address in REDIS_URL does not speak the protocol of Redis.",
    "Check host and port, and whether the server wants TLS (rediss://).",
)
READ_ONLY = Passing(
    "The server is a replica.",
    "Wait until the address leads to a primary; if it does not, correct REDIS_URL or promote the server.",
    for_commands="It is a replica: let REDIS_URL name the primary, or try again when a failover is over.",
)
NO_REPLICAS = Passing(
    "The server has fewer replicas than it wants.",
    "Bring its replicas back.",
    for_commands="It takes writes only while enough replicas are connected (min-replicas-to-write): look at them.",
)
NO_DISK = Passing(
    "The server cannot write to its disk.",
    "Look at the server's log and its disk.",
    for_commands="It cannot save its data and so takes no writes: look at its log and at its disk.",
)
FULL = Passing(
    "The server is full.",
    "Free memory or raise maxmemory.",
    for_commands="Its memory is full: raise maxmemory, or make room. Workers and `lock-worker status` go on meanwhile.",
)
LOADING = Passing(
    "The server still loads its data.", "Wait.", for_commands="It has just started: try again in a moment."
)
BUSY = Passing(
    "A script of another client keeps the server busy.",
    "Wait, or end that script with SCRIPT KILL.",
    for_commands="A script of another client keeps it busy: try again, or end that script with SCRIPT KILL.",
)
MAX_CLIENTS = Passing(
    "The server has as many clients as it allows.",
    "Raise maxclients, or close idle clients.",
    for_commands="Raise its maxclients, or close connections that nobody uses (CLIENT LIST shows them).",
)

TLS_EXPIRED = Passing(
    "The certificate of Redis has expired, or is not valid yet.",
    "Renew it on the server, and compare the server's clock with this machine's.",
)
TLS_OTHER_NAME = Passing(
    "The certificate of Redis is for another name than the host in REDIS_URL.",
    "Let REDIS_URL name a host that stands in the certificate, or let the server have one for this host.",
)
TLS_NOT_TRUSTED = Passing(
    "The certificate of Redis is of an authority that the worker does not trust.",
    "Let REDIS_CA_FILE name the certificate of that authority.",
)
TLS_CLIENT_MISSING = Passing(
    "Redis asks for a client certificate, and the worker has none.",
    "Let REDIS_CERT_FILE and REDIS_KEY_FILE name one and its key.",
)
TLS_CLIENT_EXPIRED = Passing(
    "Redis says that the worker's client certificate has expired.",
    "Put a new one and its key into the files of REDIS_CERT_FILE and REDIS_KEY_FILE. Each new connection reads them.",
)
TLS_CLIENT_REFUSED = Passing(
    "Redis does not accept the worker's client certificate.",
    "Let REDIS_CERT_FILE name one of an authority that the server trusts (its tls-ca-cert-file).",
)
TLS_CLOSED = Passing(
    "Redis closed the TLS connection without a reason.",
    "Look whether it asks for a client certificate (REDIS_CERT_FILE and REDIS_KEY_FILE), and whether the worker's is"
    " valid there and not expired; the server's log tells.",
)
TLS_KEY = Passing(
    "The private key in REDIS_KEY_FILE is not that of the certificate in REDIS_CERT_FILE, or cannot be read.",
    "Replace both files together: a certificate and its key without a password.",
)
TLS_FILE = Passing(
    "A file that REDIS_CA_FILE, REDIS_CERT_FILE or REDIS_KEY_FILE names is gone.",
    "Bring it back; it is read again for each connection.",
)
NOT_TLS = Passing(
    "What answers at the address in REDIS_URL does not speak TLS.",
    "Look whether this port speaks TLS: rediss:// is for one that does, redis:// for one that does not.",
)


def unknown_master(master: str) -> Unfit:
    """Return that no sentinel knows the primary by its name."""
    return Unfit(
        f"No sentinel in REDIS_URL knows a primary by the name {master}.",
        "Correct the name after the sentinels in REDIS_URL; SENTINEL MASTERS at a sentinel lists the names.",
    )
