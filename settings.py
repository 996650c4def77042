"""Every option of the worker: default, unit, bounds and one sentence.

Options are environment variables of the same name. :func:`load` returns settings that are valid as a whole, or raises
:class:`SettingsError` with one message that names every problem at once. Neither that message nor any ``repr`` of the
settings shows a secret. ``docs/settings.md`` is generated from this file.

A check of two options belongs to the later one of them, so that it runs, and is reported, with all the others.
"""

from __future__ import annotations

import ipaddress
import os
import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import (
    AfterValidator,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from tasks.managem.token import is_visible_ascii
from tasks.rule_limits import described, read_limit, read_limits_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasks.rule_limits import RuleLimit
    from worker.broker.redis_url import RedisUrl

#: The options that all workers of a queue must share; a worker logs a warning if another one differs. None is secret.
MUST_AGREE = (
    "LOCK_QUEUE",
    "RESULTS_CHANNEL",
    "RESULTS_MAXLEN",
    "RESULTS_MAX_BYTES",
    "EVENT_SOURCE",
    "DEAD_STREAM",
    "DEAD_MAXLEN",
    "DEAD_MAX_BYTES",
    "CONTROL_STREAM",
    "CONTROL_MAXLEN",
    "RULE_LIMIT",
    "RULE_LIMITS_FILE",
    "RESULT_CONVERSATION",
    "RESULT_MAX_BYTES",
    "DEDUPLICATE_SECONDS",
    "API_URL",
    "DRY_RUN",
    "RULES_DRY_RUN",
    "MAX_ATTEMPTS",
    "RETRY_BASE_SECONDS",
    "RETRY_MAX_DELAY_SECONDS",
    "JOB_MAX_AGE_SECONDS",
    "RATE_LIMIT_PER_SECOND",
    "LEASE_SECONDS",
    "MAX_DELIVERIES",
)

_OWN_KEYS = "lw:"
#: What the streams are called on a cluster after the queue's hash tag, if they are not named.
_CLUSTER_STREAMS = {"RESULTS_CHANNEL": "results", "DEAD_STREAM": "dead", "CONTROL_STREAM": "control"}
_URI_REFERENCE = re.compile(r"(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})+")
_MAX_TOKEN_BYTES = 64 * 1024
_MAX_RULE_CHARACTERS = 128
_MAX_STREAM_BYTES = 1_099_511_627_776


class SettingsError(Exception):
    """The settings are wrong; the message lists every problem, one a line, without any secret."""


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _split(url: str) -> SplitResult:
    # urlsplit drops line breaks and tabs from the middle of a URL; other readers may not.
    if not url.isprintable() or " " in url:
        raise ValueError("is not a URL: it holds a blank or a control character")
    try:
        parts = urlsplit(url)
        port = parts.port
        (parts.hostname or "").encode("idna")  # else resolving it fails with an unexpected error
    except ValueError:
        raise ValueError("is not a URL: its host or port cannot be read") from None
    if port == 0:
        raise ValueError("must name a port from 1 to 65535, or none")
    return parts


# A service that only sends jobs imports this module, and needs nothing of the worker: so the worker is imported late.


def _read_url(url: str) -> RedisUrl:
    from worker.broker.redis_url import parse  # noqa: PLC0415 - as said above

    return parse(url)


def _hash_tag(name: str) -> str:
    from worker.broker.keys import hash_tag  # noqa: PLC0415 - as above

    return hash_tag(name)


def _redis_url(value: SecretStr) -> SecretStr:
    url = value.get_secret_value().strip()
    _read_url(url)
    return SecretStr(url)


def _is_tls(url: SecretStr) -> bool:
    return _read_url(url.get_secret_value()).is_tls


def _api_url(value: str) -> str:
    url = value.strip()
    parts = _split(url)
    if parts.scheme not in {"https", "http"}:
        raise ValueError("must start with https://")
    if not parts.hostname:
        raise ValueError("names no host")
    if "@" in parts.netloc:
        raise ValueError("must hold no user or password; put the token into API_TOKEN or API_TOKEN_FILE")
    if "?" in url or "#" in url:
        raise ValueError("must hold no query or fragment")
    return url.rstrip("/")


def _key_name(value: str) -> str:
    if not value.isprintable():
        raise ValueError("must be printable characters")
    if value.startswith(_OWN_KEYS):
        raise ValueError(f"must not start with {_OWN_KEYS}, as the worker's own keys do")
    return value


def _printable(value: str) -> str:
    text = value.strip()
    if not text or not text.isprintable():
        raise ValueError("must be printable characters, and not only blanks")
    return text


def _uri_reference(value: str) -> str:
    text = value.strip()
    if not _URI_REFERENCE.fullmatch(text):
        raise ValueError(
            "must be a URI-reference such as /lock-worker/staging or urn:example:lock-worker, without a blank; "
            "write other characters than letters, digits and -._~:/?#[]@!$&'()*+,;= percent-encoded"
        )
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise ValueError("is not a URI-reference: its host or port cannot be read") from None
    if "@" in parts.netloc:
        raise ValueError("must hold no user or password: it stands in every event")
    is_relative = not parts.scheme and not parts.netloc
    if is_relative and ":" in parts.path.partition("/")[0]:
        raise ValueError("is not a URI-reference: there is a colon before its first slash, and no scheme before that")
    if text.count("#") > 1 or "[" in text.replace(parts.netloc, "", 1) or "]" in text.replace(parts.netloc, "", 1):
        raise ValueError("is not a URI-reference: # may stand in it once, and [ and ] around an address alone")
    return text


def _token(value: SecretStr) -> SecretStr:
    token = value.get_secret_value().strip()
    if not token:
        raise ValueError("is empty")
    if not is_visible_ascii(token):
        raise ValueError("must be visible ASCII characters without blanks")
    return SecretStr(token)


def _token_file(path: Path) -> Path:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_TOKEN_BYTES)
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot be read ({type(error).__name__})") from None
    try:
        _token(SecretStr(content.decode("latin-1")))
    except ValueError as error:
        raise ValueError(f"holds no token: it {error}") from None
    return path


def _password_file(path: Path) -> Path:
    from worker.broker.credential_files import read_password  # noqa: PLC0415 - as above

    read_password(path)
    return path


def _readable(path: Path) -> Path:
    from worker.broker.credential_files import check_readable  # noqa: PLC0415 - as above

    check_readable(path)
    return path


def _certificates(path: Path) -> Path:
    from worker.broker.credential_files import check_certificates  # noqa: PLC0415 - as above

    check_certificates(path)
    return path


def _check_private_key(key: Path, certificate: Path) -> None:
    from worker.broker.credential_files import check_private_key  # noqa: PLC0415 - as above

    check_private_key(key, certificate)


def _rule_ids(value: str) -> str:
    """Return the rule ids in one order and without blanks around them, so that equal lists are equal texts."""
    rules = sorted({rule.strip() for rule in value.split(",")})
    if "" in rules:
        raise ValueError("names an empty rule id; give rule ids with a comma between two of them, such as r-7,r-8")
    if any(not rule.isprintable() or len(rule) > _MAX_RULE_CHARACTERS for rule in rules):
        raise ValueError(f"holds what no rule id is: more than {_MAX_RULE_CHARACTERS} characters, or none to print")
    return ",".join(rules)


KeyName = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_key_name)]
_KEY_NAME: TypeAdapter[str] = TypeAdapter(KeyName)


def key_name_problem(name: object) -> str | None:
    """Return what is wrong with the name of a queue, in the words of LOCK_QUEUE's check; None if it is valid."""
    try:
        _KEY_NAME.validate_python(name, strict=True)
    except ValidationError as error:
        return str(error.errors(include_url=False, include_input=False)[0]["msg"]).removeprefix("Value error, ")
    return None


def lock_queue() -> str:
    """Read LOCK_QUEUE alone, for a producer whose environment need not hold the worker's other options.

    Raises:
        SettingsError: no queue can have that name.
    """
    name: str = os.environ.get("LOCK_QUEUE") or Settings.model_fields["LOCK_QUEUE"].default
    problem = key_name_problem(name)
    if problem is not None:
        raise SettingsError(f"LOCK_QUEUE: {problem}")
    return name


def _is_cluster(url: object) -> bool:
    """Return whether REDIS_URL names a cluster; False if it is invalid, which is reported as such."""
    text = url.get_secret_value() if isinstance(url, SecretStr) else str(url)
    try:
        return _read_url(text.strip()).is_cluster
    except ValueError:
        return False


class Settings(BaseSettings):
    """The worker's options. The reference page shows each field's description."""

    model_config = SettingsConfigDict(
        case_sensitive=True, extra="ignore", frozen=True, hide_input_in_errors=True, env_ignore_empty=True
    )

    REDIS_URL: Annotated[SecretStr, AfterValidator(_redis_url)] = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        description="The Redis or Valkey server: `redis://` or, with TLS that verifies certificate and host name, "
        "`rediss://` (`valkey://` and `valkeys://` mean the same); user, password and database number are part of it. "
        "With Sentinel `redis+sentinel://h1,h2,h3/mymaster/0`, with Redis Cluster `redis+cluster://h1,h2` "
        "([redis-topologies.md](redis-topologies.md)).",
    )
    SENTINEL_PASSWORD: SecretStr | None = Field(
        None, description="The password of the sentinels, where they have one; that in REDIS_URL is the server's."
    )
    REDIS_PASSWORD_FILE: Annotated[Path, AfterValidator(_password_file)] | None = Field(
        None,
        description="File that holds the password for Redis, instead of one in REDIS_URL; read again for each "
        "connection, so that a rotation needs no restart.",
    )
    REDIS_CA_FILE: Annotated[Path, AfterValidator(_certificates)] | None = Field(
        None, description="PEM file of the certificate authority for `rediss://`, instead of the system's."
    )
    REDIS_CERT_FILE: Annotated[Path, AfterValidator(_certificates)] | None = Field(
        None,
        description="PEM file of the certificate that the worker shows to Redis, with those between it and its "
        "authority; for `rediss://`, together with REDIS_KEY_FILE. Both are read again for each connection.",
    )
    REDIS_KEY_FILE: Annotated[Path, AfterValidator(_readable)] | None = Field(
        None,
        validate_default=True,
        description="PEM file of the private key of REDIS_CERT_FILE, without a password.",
    )
    REDIS_ALLOW_EVICTION: bool = Field(
        default=False,
        description="Start on a server whose `maxmemory-policy` is not `noeviction`: when its memory is full, it "
        "deletes jobs, or the ids by which duplicates of ended jobs are found.",
    )
    LOCK_QUEUE: KeyName = Field("moderation.lock", description="The queue that jobs are taken from.")
    RESULTS_CHANNEL: KeyName = Field(
        "moderation.results",
        validate_default=True,
        description="The stream, and the pub/sub channel of the same name, that result events go to.",
    )
    RESULTS_MAXLEN: int = Field(
        100_000,
        ge=1,
        le=100_000_000,
        description="Events kept in the results stream, approximately.",
        json_schema_extra={"unit": "events"},
    )
    RESULTS_MAX_BYTES: int = Field(
        134_217_728,
        ge=1,
        le=_MAX_STREAM_BYTES,
        description="Memory that the results stream takes in Redis, approximately: beyond it the oldest events are "
        "deleted, even if there are fewer than RESULTS_MAXLEN.",
        json_schema_extra={"unit": "bytes"},
    )
    EVENT_SOURCE: Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_uri_reference)] = Field(
        "/lock-worker",
        description="The `source` of each event, a URI-reference. Give every environment its own, so that "
        "consumers can tell their events apart.",
    )
    DEAD_STREAM: KeyName = Field(
        "moderation.dead",
        validate_default=True,
        description="The stream that failed jobs are kept in, with their raw message.",
    )
    DEAD_MAXLEN: int = Field(
        100_000,
        ge=1,
        le=100_000_000,
        description="Dead letters kept, approximately.",
        json_schema_extra={"unit": "messages"},
    )
    DEAD_MAX_BYTES: int = Field(
        67_108_864,
        ge=1,
        le=_MAX_STREAM_BYTES,
        description="Memory that the dead letters take in Redis, approximately: beyond it the oldest are deleted, even "
        "if there are fewer than DEAD_MAXLEN.",
        json_schema_extra={"unit": "bytes"},
    )
    CONTROL_STREAM: KeyName = Field(
        "moderation.control",
        validate_default=True,
        description="The stream that keeps what operators did: pauses, holds, cancels and the like, one event each.",
    )
    CONTROL_MAXLEN: int = Field(
        10_000,
        ge=1,
        le=100_000_000,
        description="Events kept in CONTROL_STREAM, approximately.",
        json_schema_extra={"unit": "events"},
    )
    RULE_LIMIT: str | None = Field(
        None,
        description="How many locks one rule may ask for over the whole fleet, such as `200/10m` (times in s, m, h or "
        "d): a rule that asks for more is held until somebody releases it.",
    )
    RULE_LIMITS_FILE: Path | None = Field(
        None,
        description="The same for single rules: a JSON file with an object of rule ids and limits. It is read at the "
        "start.",
    )
    LOCK_WORKER_ACTOR: Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_printable)] | None = Field(
        None,
        description="Who runs the commands that steer the fleet, such as `lock-worker pause`, as it is noted in "
        "CONTROL_STREAM; the login name by default. Workers do not use it.",
    )
    RESULT_CONVERSATION: Literal["full", "without_last_message", "state"] = Field(
        "full",
        description="How much of the conversation an event contains: all, all but its last message, or only its state.",
    )
    RESULT_MAX_BYTES: int = Field(
        262_144,
        ge=1,
        le=16_777_216,
        description="Size of an event, approximately: in a larger one the conversation is reduced to its state, and "
        "`data.truncated` is true.",
        json_schema_extra={"unit": "bytes"},
    )
    DEDUPLICATE_SECONDS: int = Field(
        900,
        ge=1,
        le=604_800,
        description="How long a job id is kept after its event: a duplicate that comes within that time is dropped.",
        json_schema_extra={"unit": "seconds"},
    )

    API_ALLOW_HTTP: bool = Field(
        default=False,
        description="Allow a plain `http://` API_URL to a host that is not loopback: the token travels unencrypted.",
    )
    API_URL: Annotated[str, AfterValidator(_api_url)] = Field(
        "https://api.managem.co.uk", description="The Managem API, without the path of the endpoint."
    )
    API_TOKEN: Annotated[SecretStr, AfterValidator(_token)] | None = Field(
        None, description="The bearer token for the API. Give this or API_TOKEN_FILE."
    )
    API_TOKEN_FILE: Annotated[Path, AfterValidator(_token_file)] | None = Field(
        None, description="File that holds the bearer token; read again when it changes. Give this or API_TOKEN."
    )
    ATTEMPT_TIMEOUT_SECONDS: float = Field(
        10.0,
        ge=0.05,
        le=600,
        description="The time that a whole call may take, from connecting to the last byte of the answer.",
        json_schema_extra={"unit": "seconds"},
    )
    MAX_ATTEMPTS: int = Field(
        8,
        ge=1,
        le=1000,
        description="Calls made for a job before it ends as `exhausted`.",
        json_schema_extra={"unit": "calls"},
    )
    RETRY_BASE_SECONDS: float = Field(
        0.5,
        ge=0.001,
        le=3600,
        description="Upper bound of the first wait between two calls. It doubles with each further one; a wait is a "
        "random time between zero and its bound (full jitter).",
        json_schema_extra={"unit": "seconds"},
    )
    RETRY_MAX_DELAY_SECONDS: float = Field(
        300.0,
        ge=0.001,
        le=86_400,
        validate_default=True,
        description="The longest wait between two calls, whatever the backoff or a `Retry-After` says.",
        json_schema_extra={"unit": "seconds"},
    )

    DRY_RUN: bool = Field(
        default=False,
        description="Make no call for any job: do everything else, and end each as `would_lock`. To see what a new "
        "fleet or new rules would do.",
    )
    RULES_DRY_RUN: Annotated[str, Field(min_length=1, max_length=10_000), AfterValidator(_rule_ids)] | None = Field(
        None,
        description="The same for the jobs with one of these `rule_id`s alone: `r-7,r-8`. An id with a comma cannot be "
        "named.",
    )
    JOB_MAX_AGE_SECONDS: float = Field(
        86_400.0,
        ge=0,
        le=31_536_000,
        description="How old a job may become, counted from its first take or, if later, from its `eta`. Then it ends "
        "as `exhausted` with its last problem, even while calls are held back; 0 for no bound.",
        json_schema_extra={"unit": "seconds"},
    )
    RATE_LIMIT_PER_SECOND: float | None = Field(
        None,
        gt=0,
        le=1_000_000,
        description="Calls of the whole fleet that may start in a second; unset for no limit but the API's own.",
        json_schema_extra={"unit": "calls per second"},
    )
    BREAKER_FAILURES: int = Field(
        10,
        ge=0,
        le=1_000_000,
        description="Failed calls in a row, most of them of different jobs that were never tried before and none "
        "answered between, after which a process stops taking jobs and probes with single ones until the API answers "
        "again; more where many jobs are bad anyway; 0 for no breaker.",
        json_schema_extra={"unit": "calls"},
    )

    CONCURRENCY: int = Field(
        100, ge=1, le=10_000, description="Jobs that one process runs at once.", json_schema_extra={"unit": "jobs"}
    )
    LEASE_SECONDS: float = Field(
        30.0,
        ge=0.5,
        le=3600,
        validate_default=True,
        description="How long a silent worker keeps its jobs; must be longer than ATTEMPT_TIMEOUT_SECONDS.",
        json_schema_extra={"unit": "seconds"},
    )
    MAX_DELIVERIES: int = Field(
        5,
        ge=1,
        le=1000,
        description="Workers that may die on a job before it ends as `poisoned`. 1 counts as 2: one death does not "
        "show which of its jobs killed the worker.",
        json_schema_extra={"unit": "crashes"},
    )
    SHUTDOWN_SECONDS: float = Field(
        25.0,
        ge=0,
        le=3600,
        description="How long the worker waits for jobs in flight after SIGTERM before it releases them.",
        json_schema_extra={"unit": "seconds"},
    )

    HEALTH_HOST: str = Field(
        "::",  # a pod's probes come from outside of it
        description="Address or host name that the health and metrics server listens on: `::` for every address, IPv4 "
        "and IPv6, `0.0.0.0` for every IPv4 address.",
    )
    HEALTH_PORT: int = Field(8080, ge=0, le=65_535, description="Port of the health and metrics server; 0 for none.")
    LOG_FORMAT: Literal["json", "console"] = Field(
        "json",
        description="`json`: each line that the worker writes to standard output and error is one JSON object; "
        "`console`: coloured for people.",
    )

    @model_validator(mode="before")
    @classmethod
    def _streams_follow_the_queue(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Name the streams of a cluster that are not named: they must be in the slot of the queue."""
        tag = _hash_tag(str(given.get("LOCK_QUEUE", "")))
        if not (tag and _is_cluster(given.get("REDIS_URL"))):
            return given
        return {**{name: f"{{{tag}}}.{end}" for name, end in _CLUSTER_STREAMS.items()}, **given}

    @field_validator("LOCK_QUEUE")
    @classmethod
    def _has_a_hash_tag(cls, value: str, info: ValidationInfo) -> str:
        if _is_cluster(info.data.get("REDIS_URL")) and not _hash_tag(value):
            raise ValueError(
                "must hold a hash tag on a Redis Cluster, which keeps all keys of the queue in one slot: write "
                "{moderation}.lock, for example"
            )
        return value

    @field_validator("RESULTS_CHANNEL", "DEAD_STREAM", "CONTROL_STREAM")
    @classmethod
    def _shares_the_hash_tag(cls, value: str, info: ValidationInfo) -> str:
        tag = _hash_tag(info.data.get("LOCK_QUEUE", ""))
        if tag and _hash_tag(value) != tag and _is_cluster(info.data.get("REDIS_URL")):
            ending = _CLUSTER_STREAMS[str(info.field_name)]
            raise ValueError(
                f"must hold the hash tag of LOCK_QUEUE on a Redis Cluster, or a job and its event are in different "
                f"slots: write {{{tag}}}.{ending}, for example, or leave it out"
            )
        return value

    @field_validator("SENTINEL_PASSWORD")
    @classmethod
    def _is_for_sentinels(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        url = info.data.get("REDIS_URL")  # missing: it is invalid itself, and reported
        if value is not None and url is not None and not _read_url(url.get_secret_value()).is_sentinel:
            raise ValueError("is for sentinels: let REDIS_URL start with redis+sentinel://, or leave it out")
        return value

    @field_validator("REDIS_PASSWORD_FILE")
    @classmethod
    def _is_the_only_password(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        url = info.data.get("REDIS_URL")  # missing: it is invalid itself, and reported
        if value is not None and url is not None and _read_url(url.get_secret_value()).password:
            raise ValueError("give the password in REDIS_URL or in REDIS_PASSWORD_FILE, not both")
        return value

    @field_validator("REDIS_CERT_FILE")
    @classmethod
    def _is_for_tls(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        url = info.data.get("REDIS_URL")
        if value is not None and url is not None and not _is_tls(url):
            raise ValueError("is for a server that speaks TLS: let REDIS_URL start with rediss://")
        return value

    @field_validator("REDIS_KEY_FILE")
    @classmethod
    def _belongs_to_the_certificate(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if "REDIS_CERT_FILE" not in info.data:  # it is invalid itself, and reported
            return value
        certificate: Path | None = info.data["REDIS_CERT_FILE"]
        if (value is None) != (certificate is None):
            raise ValueError("give REDIS_CERT_FILE and REDIS_KEY_FILE, or neither")
        if value is not None and certificate is not None:
            _check_private_key(value, certificate)
        return value

    @field_validator("RESULTS_CHANNEL", "DEAD_STREAM", "CONTROL_STREAM")
    @classmethod
    def _is_a_name_of_its_own(cls, value: str, info: ValidationInfo) -> str:
        for other in ("LOCK_QUEUE", "RESULTS_CHANNEL", "DEAD_STREAM"):
            if info.data.get(other) == value:
                raise ValueError(f"must differ from {other}")
        return value

    @field_validator("RULE_LIMIT")
    @classmethod
    def _is_a_limit(cls, value: str | None) -> str | None:
        if value is not None:
            read_limit(value)
        return value

    @field_validator("RULE_LIMITS_FILE")
    @classmethod
    def _has_limits(cls, value: Path | None) -> Path | None:
        if value is not None:
            read_limits_file(value)
        return value

    @field_validator("API_URL")
    @classmethod
    def _keeps_the_token_secret(cls, value: str, info: ValidationInfo) -> str:
        parts = urlsplit(value)
        allowed = info.data.get("API_ALLOW_HTTP", True)  # missing: it is invalid itself, and reported
        if parts.scheme == "http" and not allowed and not _is_loopback(parts.hostname or ""):
            raise ValueError("plain http would show the token to the network; use https, or set API_ALLOW_HTTP=true")
        return value

    @field_validator("API_TOKEN_FILE")
    @classmethod
    def _is_the_only_token(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and info.data.get("API_TOKEN", "wrong") is not None:
            raise ValueError("give API_TOKEN or API_TOKEN_FILE, not both")
        return value

    @field_validator("RETRY_MAX_DELAY_SECONDS")
    @classmethod
    def _is_no_less_than_the_first_wait(cls, value: float, info: ValidationInfo) -> float:
        base = info.data.get("RETRY_BASE_SECONDS", 0)
        if value < base:
            raise ValueError(f"must not be below RETRY_BASE_SECONDS ({base:g})")
        return value

    @field_validator("LEASE_SECONDS")
    @classmethod
    def _outlives_a_call(cls, value: float, info: ValidationInfo) -> float:
        timeout = info.data.get("ATTEMPT_TIMEOUT_SECONDS", 0)
        if value <= timeout:
            raise ValueError(
                f"must be longer than ATTEMPT_TIMEOUT_SECONDS ({timeout:g}), or a job could be taken over during a call"
            )
        return value

    def to_agree_on(self) -> dict[str, str | int | float | None]:
        """Return the settings that must be the same in the whole fleet; of RULE_LIMITS_FILE what it holds."""
        return {name: getattr(self, name) for name in MUST_AGREE} | {"RULE_LIMITS_FILE": described(self.rule_limits)}

    @cached_property
    def rule_limits(self) -> Mapping[str, RuleLimit]:
        """The limits in RULE_LIMITS_FILE; read once, so that the worker obeys those that it tells the fleet of.

        Raises:
            ValueError: the file was changed after the check of the settings, and is wrong.
        """
        return {} if self.RULE_LIMITS_FILE is None else read_limits_file(self.RULE_LIMITS_FILE)

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams that the fleet writes to."""
        return self.RESULTS_CHANNEL, self.DEAD_STREAM, self.CONTROL_STREAM

    @property
    def redis_is_tls(self) -> bool:
        """True if REDIS_URL asks for TLS."""
        return self.redis.is_tls

    @property
    def redis(self) -> RedisUrl:
        """The parts of REDIS_URL."""
        return _read_url(self.REDIS_URL.get_secret_value())

    @property
    def cluster_tag(self) -> str:
        """The hash tag of all names, with its braces; empty without a cluster."""
        return f"{{{_hash_tag(self.LOCK_QUEUE)}}}" if self.redis.is_cluster else ""


def _authorities() -> str | None:
    """Return what is wrong with the certificate authorities in OpenSSL's variables; None if nothing is."""
    file, folders = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if os.environ.get("API_URL", "").strip().lower().startswith("http:"):
        return None
    if file:
        try:
            _certificates(Path(file))
        except ValueError as error:
            return f"SSL_CERT_FILE: {file} {error}"
    elif folders and not any(Path(folder).is_dir() for folder in folders.split(os.pathsep)):
        return f"SSL_CERT_DIR: {folders} is no folder"
    return None


def _api_host(settings: Settings) -> str | None:
    """Return what the HTTP client would refuse in the host of API_URL; None if nothing."""
    import httpx  # noqa: PLC0415 - slow to import, and needed only to call the API

    try:
        httpx.URL(settings.API_URL)
    except httpx.InvalidURL:  # its text quotes the URL
        return "API_URL: is not a URL: its host is neither a name nor an address, or it is too long"
    return None


def load(*, need_token: bool) -> Settings:
    """Read the settings from the environment.

    Args:
        need_token: the API will be called, so check its token, its certificate authorities and its host too.

    Raises:
        SettingsError: something is wrong; the message names every problem, one a line, and no secret.
    """
    settings, problems = _read()
    if need_token and not (os.environ.get("API_TOKEN") or os.environ.get("API_TOKEN_FILE")):
        problems.append("API_TOKEN: is missing; give it or API_TOKEN_FILE")
    authorities = _authorities() if need_token else None
    if authorities:
        problems.append(authorities)
    host = _api_host(settings) if need_token and settings is not None else None
    if host:
        problems.append(host)
    if settings is None or problems:
        raise SettingsError("the settings are wrong:\n" + "\n".join(f"  - {problem}" for problem in problems))
    return settings


def _read() -> tuple[Settings | None, list[str]]:
    try:
        return Settings(), []
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
    return None, [f"{problem['loc'][0]}: {problem['msg'].removeprefix('Value error, ')}" for problem in problems]
