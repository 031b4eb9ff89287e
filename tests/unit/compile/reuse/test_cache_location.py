"""URLs of shared stores: the service and options they stand for, and errors without credentials."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from attnforge.compile.reuse.cache.location import Service, parse, service_of
from attnforge.errors import RequestError


def service(url: str, environ: Mapping[str, str] | None = None) -> Service:
    return service_of(parse(url), environ or {})


AWS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "hunter2", "AWS_SESSION_TOKEN": "t", "AWS_REGION": "r"}
AZURE = "DefaultEndpointsProtocol=https;AccountName=acc;AccountKey=aGk=;EndpointSuffix=core.chinacloudapi.cn"


@pytest.mark.parametrize(
    ("url", "environ", "scheme", "options"),
    [
        (
            "s3://bucket/a/b?region=eu&endpoint=http://minio:9000",
            {},
            "s3",
            {"bucket": "bucket", "root": "/a/b", "region": "eu", "endpoint": "http://minio:9000"},
        ),
        (
            "s3://bucket",
            AWS,
            "s3",
            {
                "bucket": "bucket",
                "region": "r",
                "access_key_id": "id",
                "secret_access_key": "hunter2",
                "session_token": "t",
            },
        ),
        (
            "s3://b?region=u",
            {"AWS_REGION": "r", "AWS_PROFILE": "p"},
            "s3",
            {"bucket": "b", "region": "u", "profile": "p"},
        ),
        (
            "s3://b",
            {"AWS_ENDPOINT_URL": "http://m"},
            "s3",
            {"bucket": "b", "region": "us-east-1", "endpoint": "http://m"},
        ),
        (
            "s3://b?region=r&anonymous=true&virtual_host=true",
            {},
            "s3",
            {"bucket": "b", "region": "r", "skip_signature": "true", "enable_virtual_host_style": "true"},
        ),
        ("gs://bucket/a", {}, "gcs", {"bucket": "bucket", "root": "/a"}),
        (
            "gs://b",
            {"GOOGLE_APPLICATION_CREDENTIALS": "/key.json"},
            "gcs",
            {"bucket": "b", "credential_path": "/key.json"},
        ),
        (
            "azblob://box/a?account=acc",
            {"AZURE_STORAGE_KEY": "k"},
            "azblob",
            {
                "container": "box",
                "root": "/a",
                "endpoint": "https://acc.blob.core.windows.net",
                "account_name": "acc",
                "account_key": "k",
            },
        ),
        (
            "azblob://box",
            {"AZURE_STORAGE_CONNECTION_STRING": AZURE},
            "azblob",
            {
                "container": "box",
                "endpoint": "https://acc.blob.core.chinacloudapi.cn",
                "account_name": "acc",
                "account_key": "aGk=",
            },
        ),
        ("redis://host", {}, "redis", {"endpoint": "redis://host:6379", "db": "0", "root": "/attnforge"}),
        (
            "rediss://:p%2Fw@host:1/2?prefix=team",
            {},
            "redis",
            {"endpoint": "rediss://host:1", "db": "2", "root": "/team", "password": "p/w"},
        ),
        ("redis://[::1]:7/", {}, "redis", {"endpoint": "redis://[::1]:7", "db": "0", "root": "/attnforge"}),
        (
            "webdav://host:8080/a%20b",
            {"ATTNFORGE_STORE_USER": "u", "ATTNFORGE_STORE_PASSWORD": "p", "ATTNFORGE_STORE_TOKEN": "t"},
            "webdav",
            {"endpoint": "http://host:8080", "root": "/a b", "username": "u", "password": "p"},
        ),
        (
            "webdavs://u:p%40@host/",
            {"ATTNFORGE_STORE_USER": "other"},
            "webdav",
            {"endpoint": "https://host", "root": "/", "username": "u", "password": "p@"},
        ),
        (
            "webdavs://host",
            {"ATTNFORGE_STORE_TOKEN": "t"},
            "webdav",
            {"endpoint": "https://host", "token": "t"},
        ),
    ],
)
def test_a_url_stands_for_a_service(url: str, environ: dict[str, str], scheme: str, options: dict[str, str]) -> None:
    assert service(url, environ) == Service(scheme, options)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "not a URL"),
        ("/shared/folder", "not a URL"),
        ("ftp://host/x", "scheme ftp"),
        ("S3://bucket", "scheme S3"),
        ("s3://", "no host"),
        ("s3:///prefix?region=r", "no host"),
        ("s3://bucket", "no region"),
        ("s3://bucket?region=r&anonymous=yes", "neither true nor false"),
        ("s3://bucket?regoin=r", "option regoin"),
        ("s3://bucket?region", "can't be read"),
        ("azblob://box", "no account"),
        ("redis://host/name", "number of a database"),
        ("webdav://host/x?token=t", "it takes none"),
        ("webdav://host:port/", "can't be read"),
        ("webdav://host:99999/", "can't be read"),
        ("webdav://[::1/", "can't be read"),
        ("webdav://host/#part", "can't be read"),
    ],
)
def test_a_url_that_can_not_be_used_is_a_request_error(url: str, why: str) -> None:
    with pytest.raises(RequestError, match=why) as caught:
        service(url)
    assert caught.value.hint


@pytest.mark.parametrize(
    "url",
    [
        "webdav://me:hunter2@host:bad/x",
        "webdav://me:hunter2/x@host/x",
        "webdav://me:a/hunter2@host/x",
        "webdav://me:hunter2#x@host/x",
        "redis://me:hunter2?x@host/0",
        "redis://me:hunter2@host/0?password=hunter2",
        "redis://me:hunter2@host/name",
        "rediss://me:hunter2@/0",
        "s3://id:hunter2@bucket",
        "s3://bucket?secret_access_key=hunter2",
        "hunter2",
    ],
)
def test_no_error_shows_a_password(url: str) -> None:
    with pytest.raises(RequestError) as caught:
        service(url)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_no_text_of_a_value_shows_a_password() -> None:
    url = "webdav://me:hunter2@host:80/x"
    assert parse(url).name == "webdav://host:80/x"
    assert "hunter2" not in repr(parse(url)) + repr(service(url))
    assert service(url).secrets == ("hunter2",)
    assert service("s3://b", AWS).secrets == ("id", "hunter2", "t")
