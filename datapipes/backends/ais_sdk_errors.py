"""Our errors of AIStore as the SDK's errors; loaded by the first error, see ``ais_errors``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from datapipes.backends.ais_errors import EtlMissingError
from datapipes.errors import (
    AccessDeniedError,
    BackendIOError,
    ContainerMissingError,
    DatapipesError,
    FileMissingError,
    UrlError,
)

__all__ = [
    "SDK_KINDS",
    "AisAccessDeniedError",
    "AisBucketMissingError",
    "AisEtlMissingError",
    "AisIOError",
    "AisObjectMissingError",
    "AisUrlError",
]

if TYPE_CHECKING:

    class _Api(Exception):  # noqa: N818 - stands for the SDK's classes, which have no types
        pass

    class _Bucket(_Api): ...

    class _RemoteBucket(_Api): ...

    class _Object(_Api): ...

    class _Etl(_Api): ...

    class _Url(Exception): ...  # noqa: N818 - likewise

else:
    try:
        from aistore.sdk.errors import AISError as _Api
        from aistore.sdk.errors import ErrBckNotFound as _Bucket
        from aistore.sdk.errors import ErrETLNotFound as _Etl
        from aistore.sdk.errors import ErrObjNotFound as _Object
        from aistore.sdk.errors import ErrRemoteBckNotFound as _RemoteBucket
        from aistore.sdk.errors import InvalidURLException as _Url
    except ImportError:  # then these are ours alone, under the same names
        _Api = type("_Api", (Exception,), {})
        _Bucket = type("_Bucket", (_Api,), {})
        _RemoteBucket = type("_RemoteBucket", (_Api,), {})
        _Object = type("_Object", (_Api,), {})
        _Etl = type("_Etl", (_Api,), {})
        _Url = type("_Url", (Exception,), {})


class _Fields(DatapipesError):  # noqa: N818 - not an error by itself
    """The attributes that the SDK's errors have, out of ours."""

    @property
    def status_code(self) -> int:
        return self.code if isinstance(self.code, int) else 0

    @property
    def message(self) -> str:
        return str(self)

    @property
    def req_url(self) -> str:
        return self.url or ""

    @property
    def req(self) -> Any:
        return None


class AisUrlError(_Fields, UrlError, _Url, _Api):
    """A malformed URL, as ``UrlError``, ``InvalidURLException`` and ``AISError``."""


class AisBucketMissingError(_Fields, ContainerMissingError, _Bucket, _RemoteBucket):
    """A missing bucket, as ``ContainerMissingError``, ``ErrBckNotFound`` and ``ErrRemoteBckNotFound``."""


class AisObjectMissingError(_Fields, FileMissingError, _Object):
    """A missing object, as ``FileMissingError`` and ``ErrObjNotFound``."""


class AisAccessDeniedError(_Fields, AccessDeniedError, _Api):
    """Access refused, as ``AccessDeniedError`` and ``AISError``."""


class AisEtlMissingError(_Fields, EtlMissingError, _Etl):
    """A missing ETL, as ``EtlMissingError`` and ``ErrETLNotFound``."""


class AisIOError(_Fields, BackendIOError, _Api):
    """Any other refusal, as ``BackendIOError`` and ``AISError``."""


SDK_KINDS: dict[type[DatapipesError], type[DatapipesError]] = {
    AccessDeniedError: AisAccessDeniedError,
    BackendIOError: AisIOError,
    ContainerMissingError: AisBucketMissingError,
    EtlMissingError: AisEtlMissingError,
    FileMissingError: AisObjectMissingError,
    UrlError: AisUrlError,
}
"""By our class, ours that is also the SDK's.

Faults below HTTP have none: the SDK lets those of requests through.
"""
