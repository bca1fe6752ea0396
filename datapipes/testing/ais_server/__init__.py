"""An embedded AIStore: a small HTTP server over a directory that the aistore SDK takes for a cluster.

    with AisServer() as server:
        server.store.put("bucket", "a/b.txt", b"hello")
        client = aistore.sdk.Client(server.url)

Needs the ``ais-server`` extra (aiohttp, msgspec, xxhash). ``README.md`` beside this file says what it does,
what it does not, and how names become files.
"""

from datapipes.testing.ais_server.faults import Request
from datapipes.testing.ais_server.names import Bck
from datapipes.testing.ais_server.server import AisServer
from datapipes.testing.ais_server.store import Facts, Store, StoredFile

__all__ = ["AisServer", "Bck", "Facts", "Request", "Store", "StoredFile"]
