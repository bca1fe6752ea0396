"""The aistore SDK's sources (``Bucket``, ``ObjectGroup``, ``Object``, any ``AISSource``) as URLs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from datapipes.backends.ais_errors import client, error_from_exception
from datapipes.errors import OptionError

__all__ = ["SourceUrls", "source_key"]


class SourceUrls:
    """The URLs of a source's objects, of those whose names begin with ``prefix``."""

    def __init__(self, prefix: str = "", etl_name: str | None = None) -> None:
        self.prefix = prefix
        self.etl_name = etl_name

    def __call__(self, source: Any) -> Iterator[str]:
        """In the order of the source. The SDK's errors come as ours, which are the SDK's as well."""
        if not hasattr(source, "list_urls") and not hasattr(source, "get_url"):
            raise OptionError(
                "a source of AIStore is a Bucket, ObjectGroup or Object of the aistore SDK, or an AISSource, "
                f"not {source!r:.200}"
            )
        etl = client("aistore.sdk.etl").ETLConfig(self.etl_name) if self.etl_name else None
        try:
            if hasattr(source, "list_urls"):
                yield from source.list_urls(prefix=self.prefix, etl=etl)
            elif source.name.startswith(self.prefix):  # one object
                yield source.get_url(etl=etl)
        except Exception as error:
            raise error_from_exception(error, url=source_key(source), operation="list") from error


def source_key(source: Any) -> str:
    """What tells a source from others in any process; of a class of the user's, what it says of itself."""
    kind = type(source)
    if kind.__module__.partition(".")[0] != "aistore":
        return repr(source)
    if kind.__name__ == "Object":
        return str(source.get_url())
    facts: list[object] = [kind.__name__, source.client.base_url]
    if kind.__name__ == "ObjectGroup":
        facts += [source_key(source.bck), list(source.list_names())]
    else:
        facts += [source.provider, source.namespace, source.name]
    return json.dumps(facts, default=str)
