"""Reads the URL of a shared store: which service of OpenDAL it is, and with which options. Pure.

Credentials come from the variables that the clouds' own tools read. They are never part of a message: errors name the
store by scheme, host and path only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from attnforge.errors import RequestError

# For stores whose protocol has no variables. They are used if the URL has no user.
USER, PASSWORD, TOKEN = "ATTNFORGE_STORE_USER", "ATTNFORGE_STORE_PASSWORD", "ATTNFORGE_STORE_TOKEN"
CREDENTIAL_VARIABLES = (USER, PASSWORD, TOKEN)

SECRET = "ATTNFORGE_STORE_SECRET"
"""The variable with the secret that seals entries. It is not an option: others can see a command line."""

FORMS = (
    "s3://bucket/prefix?region=REGION&endpoint=URL, gs://bucket/prefix, azblob://container/prefix?account=NAME, "
    "redis://host:6379/0, rediss://..., webdav://host/path, webdavs://host/path or file:///shared/folder"
)

_SECRET = ("access_key_id", "secret_access_key", "session_token", "account_key", "sas_token", "password", "token")


@dataclass(frozen=True, slots=True)
class Location:
    """A store's URL taken apart: ``host`` is the host with its port, or the bucket or container."""

    scheme: str
    host: str
    path: str
    user: str = field(repr=False)
    password: str = field(repr=False)
    query: Mapping[str, str]

    @property
    def name(self) -> str:
        """The URL without credentials and options, for messages."""
        return f"{self.scheme}://{self.host}{self.path}"


@dataclass(frozen=True, slots=True)
class Service:
    """What OpenDAL is given: the name of a service and its options (https://opendal.apache.org/docs/services)."""

    scheme: str
    options: Mapping[str, str] = field(repr=False)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The values of options that no message may show."""
        return tuple(self.options[name] for name in _SECRET if self.options.get(name))


def parse(url: str) -> Location:
    """Take a store's URL apart; RequestError for one that can't be read, of an unknown scheme or with unknown options.

    The errors show nothing of it but the scheme, as the rest may be a password that was not percent-encoded.
    """
    scheme, mark, _ = url.partition("://")
    if not mark or scheme not in _QUERY:
        what = f"no store has the scheme {scheme}" if mark else "the store's address is not a URL"
        raise RequestError(what, hint=f"give it as {FORMS}")
    try:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        readable = parts.port != 0 and not parts.fragment and "@" not in parts.path
    except ValueError:
        readable = False
    if not readable:
        raise _bad(scheme, "it can't be read as a URL", "percent-encode / @ : # ? % in user and password (%2F for /)")
    _check_query(scheme, query)
    return Location(
        scheme,
        parts.netloc.rpartition("@")[2],
        unquote(parts.path),
        unquote(parts.username or ""),
        unquote(parts.password or ""),
        query,
    )


def _check_query(scheme: str, query: Mapping[str, str]) -> None:
    known = _QUERY[scheme]
    for name in query:
        if name not in known:
            options = f"it takes {', '.join(known)}" if known else "it takes none"
            raise _bad(scheme, f"it has the option {name}", f"{options}; credentials come from the environment")


def _bad(scheme: str, why: str, hint: str) -> RequestError:
    return RequestError(f"the store's URL ({scheme}://...) can't be used", why=why, hint=hint)


def service_of(location: Location, environ: Mapping[str, str]) -> Service:
    """Return the OpenDAL service of a location that is not a folder; RequestError if it lacks something."""
    if not location.host:
        raise _bad(location.scheme, "it names no host, bucket or container", f"give it as {FORMS}")
    service = _SERVICES[location.scheme](location, environ)
    return Service(service.scheme, {name: value for name, value in service.options.items() if value})


def _s3(location: Location, environ: Mapping[str, str]) -> Service:
    # AWS_*: https://docs.aws.amazon.com/sdkref/latest/guide/environment-variables.html
    endpoint = location.query.get("endpoint") or _first(environ, "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    region = location.query.get("region") or _first(environ, "AWS_REGION", "AWS_DEFAULT_REGION")
    if not region and not endpoint:
        raise RequestError(f"{location.name} has no region", hint="add ?region=eu-central-1, or set AWS_REGION")
    return Service(
        "s3",
        {
            "bucket": location.host,
            "root": location.path,
            # Servers other than Amazon's take requests that are signed for its first region, unless they are set up
            # for another one.
            "region": region or "us-east-1",
            "endpoint": endpoint,
            "access_key_id": environ.get("AWS_ACCESS_KEY_ID", ""),
            "secret_access_key": environ.get("AWS_SECRET_ACCESS_KEY", ""),
            "session_token": environ.get("AWS_SESSION_TOKEN", ""),
            "profile": environ.get("AWS_PROFILE", ""),
            "skip_signature": _flag(location, "anonymous"),
            "enable_virtual_host_style": _flag(location, "virtual_host"),
        },
    )


def _gcs(location: Location, environ: Mapping[str, str]) -> Service:
    return Service(
        "gcs",
        {
            "bucket": location.host,
            "root": location.path,
            "endpoint": location.query.get("endpoint", ""),
            "credential_path": environ.get("GOOGLE_APPLICATION_CREDENTIALS", ""),
            "token": environ.get("CLOUDSDK_AUTH_ACCESS_TOKEN", ""),
            "skip_signature": _flag(location, "anonymous"),
        },
    )


def _azblob(location: Location, environ: Mapping[str, str]) -> Service:
    # AZURE_STORAGE_*: https://learn.microsoft.com/en-us/cli/azure/storage
    connection = _connection(environ.get("AZURE_STORAGE_CONNECTION_STRING", ""))
    account = location.query.get("account") or environ.get("AZURE_STORAGE_ACCOUNT") or connection.get("AccountName", "")
    suffix = connection.get("EndpointSuffix", "core.windows.net")
    endpoint = location.query.get("endpoint") or connection.get("BlobEndpoint", "")
    if not account and not endpoint:
        raise RequestError(
            f"{location.name} has no account", hint="add ?account=NAME, or set AZURE_STORAGE_CONNECTION_STRING"
        )
    return Service(
        "azblob",
        {
            "container": location.host,
            "root": location.path,
            "endpoint": endpoint or f"https://{account}.blob.{suffix}",
            "account_name": account,
            "account_key": environ.get("AZURE_STORAGE_KEY") or connection.get("AccountKey", ""),
            "sas_token": environ.get("AZURE_STORAGE_SAS_TOKEN") or connection.get("SharedAccessSignature", ""),
            "skip_signature": _flag(location, "anonymous"),
        },
    )


def _connection(text: str) -> dict[str, str]:
    """Take a connection string of Azure Storage apart: ``AccountName=...;AccountKey=...``, where values may hold =."""
    pairs = (part.partition("=") for part in text.split(";"))
    return {name.strip(): value for name, equals, value in pairs if equals}


def _redis(location: Location, environ: Mapping[str, str]) -> Service:
    database = location.path.strip("/")
    if database and not database.isdecimal():
        raise _bad(
            location.scheme, "its path is not the number of a database", "give it as redis://host:6379/0?prefix=NAME"
        )
    port = "" if location.host.rpartition(":")[2].isdecimal() else ":6379"
    user, password = _login(location, environ)
    return Service(
        "redis",
        {
            "endpoint": f"{location.scheme}://{location.host}{port}",
            "db": database or "0",
            "root": "/" + location.query.get("prefix", "attnforge").strip("/"),
            "username": user,
            "password": password,
        },
    )


def _webdav(location: Location, environ: Mapping[str, str]) -> Service:
    user, password = _login(location, environ)
    return Service(
        "webdav",
        {
            "endpoint": f"{'https' if location.scheme == 'webdavs' else 'http'}://{location.host}",
            "root": location.path,
            "username": user,
            "password": password,
            "token": "" if user else environ.get(TOKEN, ""),
        },
    )


def _login(location: Location, environ: Mapping[str, str]) -> tuple[str, str]:
    if location.user or location.password:
        return location.user, location.password
    return environ.get(USER, ""), environ.get(PASSWORD, "")


def _first(environ: Mapping[str, str], *names: str) -> str:
    return next((environ[name] for name in names if environ.get(name)), "")


def _flag(location: Location, name: str) -> str:
    value = location.query.get(name, "false")
    if value not in ("true", "false"):
        raise _bad(location.scheme, f"its option {name} is neither true nor false", f"add {name}=true, or leave it out")
    return "true" if value == "true" else ""


_SERVICES: dict[str, Callable[[Location, Mapping[str, str]], Service]] = {
    "s3": _s3,
    "gs": _gcs,
    "azblob": _azblob,
    "redis": _redis,
    "rediss": _redis,
    "webdav": _webdav,
    "webdavs": _webdav,
}

_QUERY: dict[str, tuple[str, ...]] = {
    "s3": ("region", "endpoint", "anonymous", "virtual_host"),
    "gs": ("endpoint", "anonymous"),
    "azblob": ("account", "endpoint", "anonymous"),
    "redis": ("prefix",),
    "rediss": ("prefix",),
    "webdav": (),
    "webdavs": (),
    "file": (),
}
