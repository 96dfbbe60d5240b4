"""Images from object stores that the settings name: S3, Google Cloud Storage, Azure."""

import asyncio
import importlib
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from detectors.hosts import Hosts
from detectors.policy import ImagePolicy
from schemas.errors import BusyError, ConfigurationError, Reason, RejectedError

SCHEMES = frozenset({"s3", "gs", "az"})
_RETRY_AFTER_S = 5.0


class ObjectFetcher:
    """Reads objects of the buckets in `policy.stores` and no others, as our credentials may reach more than a caller should."""

    def __init__(self, policy: ImagePolicy, hosts: Hosts) -> None:
        self._policy = policy
        self._hosts = hosts
        # obstore is imported only where a store is set.
        self._errors: tuple[type[Exception], ...] = (OSError, ValueError, *(_obstore_errors() if policy.stores else ()))
        self._stores = {bucket: _open_store(bucket, options, policy) for bucket, options in policy.stores.items()}

    async def fetch(self, uri: str) -> bytes:
        """The object at `scheme://bucket/key`; the key is taken as it stands, nothing in it is percent-decoded.

        Raises RejectedError if the bucket is not ours to read, or the object is missing, forbidden or too large; else BusyError.
        """
        scheme, _, rest = uri.partition("://")
        bucket, _, key = rest.partition("/")
        store = self._stores.get(f"{scheme}://{bucket}")
        if store is None:
            raise RejectedError(Reason.URI_FORBIDDEN, "the settings do not allow this bucket")
        async with self._hosts.turn(f"{scheme}://{bucket}"):
            try:
                async with asyncio.timeout(self._policy.timeouts.total_s):
                    return await self._read(store, key)
            except self._errors as error:
                raise map_store_error(error) from error

    async def _read(self, store: Any, key: str) -> bytes:
        result = await store.get_async(key)
        size = int(result.meta["size"])
        if size > self._policy.max_bytes:
            raise RejectedError(Reason.IMAGE_TOO_LARGE, f"{size} bytes; at most {self._policy.max_bytes} are read")
        return bytes(await result.bytes_async())


def map_store_error(error: Exception) -> RejectedError | BusyError:
    """What to do about an error of an object store. Our own credentials being refused is no fault of the image."""
    name = type(error).__name__
    if isinstance(error, FileNotFoundError) or name == "NotFoundError":
        return RejectedError(Reason.IMAGE_NOT_FOUND, "there is no such object")
    if isinstance(error, PermissionError) or name == "PermissionDeniedError":
        return RejectedError(Reason.IMAGE_FORBIDDEN, "the object may not be read")
    if name == "InvalidPathError":
        return RejectedError(Reason.URI_UNSUPPORTED, "not the key of an object")
    if isinstance(error, TimeoutError):
        return BusyError(Reason.FETCH_TIMEOUT, "the store does not answer in time", _RETRY_AFTER_S)
    return BusyError(Reason.FETCH_FAILED, f"the store fails ({name})", _RETRY_AFTER_S)


def _obstore_errors() -> tuple[type[Exception], ...]:
    return (importlib.import_module("obstore.exceptions").BaseError,)


def _open_store(bucket: str, options: Mapping[str, str], policy: ImagePolicy) -> Any:
    if bucket.partition("://")[0] not in SCHEMES or bucket.count("/") != 2:
        raise ConfigurationError(f"{bucket!r} is not an object store; write s3://bucket, gs://bucket or az://container")
    timeouts = policy.timeouts
    refusals: tuple[type[Exception], ...] = (ValueError, *_obstore_errors())
    try:
        return importlib.import_module("obstore.store").from_url(
            bucket,
            config=dict(options),
            client_options={
                # Ours comes first and says what it is; this one only ends what we have left.
                "timeout": timedelta(seconds=2 * timeouts.total_s),
                "connect_timeout": timedelta(seconds=timeouts.connect_s),
                "allow_http": options.get("endpoint", "").startswith("http://"),
            },
            retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=timeouts.total_s)},
        )
    except refusals as error:
        raise ConfigurationError(f"cannot open {bucket}: {error}") from error
