"""What a store costs: ``python bench/store.py``. Each adapter puts, gets and deletes the same segments.

One SeaweedFS (from its wheel) serves ``s3`` and ``minio`` in the same run, on this machine; ``directory``
writes to the same disk. The adapters take turns, round by round, so that a busy moment hits each of them.
As in the recorder and the gate, several threads share one adapter.

MB and GB are 10^6 and 10^9 bytes. CPU seconds are those of this process, hashing included, without the
server's. The last line with ``--json`` is one object, a key for each adapter.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from videostore.domain.segment import ObjectKey, Sha256Hex
from videostore.ports import SegmentStore
from videostore.store.directory import DirectoryStore
from videostore.store.minio import MinioStore
from videostore.store.s3 import S3Store

ROOT = Path(__file__).parents[1]
ROUNDS = 4


@contextmanager
def adapters(directory: Path, endpoint: str, credentials: str) -> Iterator[dict[str, SegmentStore]]:
    """Yield the adapters over fresh stores; without ``endpoint``, over a server of our own."""
    sys.path.insert(0, str(ROOT))
    from tests.servers import seaweedfs
    from videostore.store.bucket import Bucket

    def over(buckets: dict[str, Bucket]) -> dict[str, SegmentStore]:
        for bucket in buckets.values():
            bucket.client.create_bucket(Bucket=bucket.name)
        return {
            "directory": DirectoryStore.create(directory / "store"),
            "s3": S3Store(buckets["s3"]),
            "minio": MinioStore(buckets["minio"]),
        }

    names = {name: f"bench-{name}-{os.getpid()}" for name in ("s3", "minio")}
    if endpoint:
        access, _, secret = os.environ[credentials].partition(":")
        keys = (access, secret)
        yield over({name: Bucket(at, endpoint=endpoint, credentials=keys) for name, at in names.items()})
        return
    (directory / "server").mkdir()
    with seaweedfs(directory / "server") as server:
        yield over({name: server.as_admin(at) for name, at in names.items()})


def measure(work: Callable[[ObjectKey], object], keys: list[ObjectKey], threads: int) -> tuple[float, float]:
    """Return the seconds and the CPU seconds that ``work`` took for all ``keys``."""
    began, spent = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, keys))
    return time.perf_counter() - began, time.process_time() - spent


def one_round(store: SegmentStore, number: int, bodies: list[bytes], threads: int) -> dict[str, float]:
    """Put, get and delete every body once. Returns what it took, by name."""
    keys = {
        ObjectKey(f"segments/2026-11-24/bench/{number}-{at:05d}.mp4.age"): at for at in range(len(bodies))
    }
    digests = [Sha256Hex(hashlib.sha256(body).hexdigest()) for body in bodies]
    put_s, put_cpu_s = measure(
        lambda key: store.put(key, bodies[keys[key]], sha256=digests[keys[key]]), list(keys), threads
    )
    get_s, get_cpu_s = measure(store.get, list(keys), threads)
    for key, at in keys.items():
        assert store.get(key) == bodies[at]
    began = time.perf_counter()
    assert not store.delete(list(keys))
    delete_s = time.perf_counter() - began
    assert next(store.objects(), None) is None
    return {
        "put_s": put_s,
        "put_cpu_s": put_cpu_s,
        "get_s": get_s,
        "get_cpu_s": get_cpu_s,
        "delete_s": delete_s,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--segments", type=int, default=40, help="in each of four rounds")
    parser.add_argument("--size", type=int, default=2_500_000, help="bytes: ten seconds at 2 Mbit/s")
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--endpoint", default="", help="URL of an S3 store; default: a SeaweedFS of our own")
    parser.add_argument("--credentials", default="BENCH_S3", help="variable with ACCESS_KEY:SECRET_KEY")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    bodies = [os.urandom(options.size) for _ in range(options.segments)]
    took: dict[str, list[dict[str, float]]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="bench-store-") as directory,
        adapters(Path(directory), options.endpoint, options.credentials) as stores,
    ):
        for number in range(ROUNDS + 1):
            for name, store in stores.items():
                spent = one_round(store, number, bodies, options.threads)
                if number:  # the first opens connections
                    took.setdefault(name, []).append(spent)
    mb = ROUNDS * options.segments * options.size / 1e6
    results = {
        name: {
            "put_mb_per_s": round(mb / spent["put_s"], 1),
            "get_mb_per_s": round(mb / spent["get_s"], 1),
            "put_cpu_s_per_gb": round(spent["put_cpu_s"] / mb * 1000, 2),
            "get_cpu_s_per_gb": round(spent["get_cpu_s"] / mb * 1000, 2),
            "delete_per_s": round(ROUNDS * options.segments / spent["delete_s"], 0),
        }
        for name, rounds in took.items()
        for spent in [{what: sum(one[what] for one in rounds) for what in rounds[0]}]
    }
    size = f"{options.segments} segments of {options.size / 1e6:.1f} MB"
    print(f"{size}, {ROUNDS} rounds, {options.threads} threads")
    print(f"{'':<18}" + "".join(f"{name:>12}" for name in results))
    for row in next(iter(results.values())):
        print(f"{row:<18}" + "".join(f"{facts[row]:>12}" for facts in results.values()))
    if options.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
