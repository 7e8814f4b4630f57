"""Requests to object storage: by which package they are made, and how often one is tried.

``s3://``, ``gs://``, ``az://``, ``https://`` and ``hf://`` are opened by fsspec, each by the
package that fsspec names for it; credentials and endpoints are those of that package's own
environment and files. A request that fails is repeated, ``ATTEMPTS`` times in all, with growing
pauses.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any, TypeVar

from mimic_core.base.errors import ConfigError, RemoteError

ATTEMPTS = 6
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0  # seconds; about 16 in all
_TIMEOUT = 60  # seconds until a silent connection counts as broken
_PAUSE: Callable[[float], None] = time.sleep
T = TypeVar("T")


class Gone(Exception):
    """There is no such object."""


def tried(ask: Callable[[], T], url: str) -> T:
    """What ``ask`` gives, asked again as often as it takes or is worth."""
    pause = FIRST_PAUSE
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return ask()
        except FileNotFoundError as error:
            raise Gone from error
        except (PermissionError, ImportError) as error:
            raise _refused(url, error) from error
        except Exception as error:
            if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError"):
                raise _refused(url, error) from error
            if attempt == ATTEMPTS:
                words = " ".join(str(error).split())[:200] or type(error).__name__
                raise RemoteError(
                    f"object storage does not answer ({words})",
                    got=f"{url}, tried {ATTEMPTS} times",
                    next_step="check the connection and run the same command again: what is "
                    "finished is kept",
                ) from error
        _PAUSE(pause * random.uniform(0.5, 1.0))  # so that not all ask at once
        pause = min(2 * pause, LONGEST_PAUSE)
    raise AssertionError  # the last attempt has returned or raised


def _refused(url: str, error: Exception) -> RemoteError:
    return RemoteError(
        f"access to object storage is refused ({' '.join(str(error).split())[:200]})",
        got=url,
        next_step="set the credentials and, where it is not the usual one, the endpoint "
        "(such as AWS_PROFILE, AWS_ENDPOINT_URL), and check who may read or write there",
    )


@lru_cache(maxsize=16)
def filesystem(scheme: str) -> Any:
    """The file system of fsspec; for S3 with bounded waiting."""
    try:
        import fsspec

        options: dict[str, Any] = {"use_listings_cache": False}
        if scheme == "s3":
            times = {"connect_timeout": 15, "read_timeout": _TIMEOUT}
            options = {**options, "config_kwargs": times}
        if scheme in ("https", "http"):
            import aiohttp

            options["client_kwargs"] = {"timeout": aiohttp.ClientTimeout(sock_read=_TIMEOUT)}
        return fsspec.filesystem(scheme, **options)
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"{scheme}:// needs a package that is not installed ({error})",
            got=f"{scheme}://",
            allowed="the extras s3, gs, az and hf of this package; aiohttp for https://",
            next_step="pip install s3fs (s3://), gcsfs (gs://), adlfs (az://), aiohttp (https://) "
            "or huggingface_hub (hf://)",
        ) from error


def abort_uploads(files: Any, bucket: str, key: str) -> None:
    """End the uploads in parts to ``key`` and below it, whose process may have been killed: their
    parts are seen by nobody, and paid for. Who may not list them leaves them to the bucket's rules.
    """
    with suppress(PermissionError, NotImplementedError):
        said = files.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=key)
        for one in said.get("Uploads", ()):
            if one["Key"] == key or one["Key"].startswith(f"{key}/"):
                known = {name: one[name] for name in ("Key", "UploadId")}
                files.call_s3("abort_multipart_upload", Bucket=bucket, **known)
