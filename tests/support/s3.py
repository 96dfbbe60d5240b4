"""A real S3 server on loopback."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import boto3  # type: ignore[import-untyped]
from moto.server import ThreadedMotoServer

KEYS = {"access_key_id": "test", "secret_access_key": "test", "region": "us-east-1"}


@dataclass(frozen=True, slots=True)
class S3:
    """A server that runs. `client` is boto3's."""

    endpoint: str
    client: Any

    @property
    def options(self) -> dict[str, str]:
        """What obstore wants to know of each of its buckets."""
        return {"endpoint": self.endpoint, **KEYS}


@contextmanager
def s3_server() -> Iterator[S3]:
    """Without any bucket."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        secrets = {"aws_access_key_id": KEYS["access_key_id"], "aws_secret_access_key": KEYS["secret_access_key"]}
        with closing(boto3.client("s3", endpoint_url=url, region_name=KEYS["region"], **secrets)) as client:
            yield S3(url, client)
    finally:
        server.stop()
