"""Hash many tiles on the threads asked for; the result does not depend on how many there are."""

import functools
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

from anh_jax.digest.hashes import BulkHashes
from anh_jax.digest.tiles import Tiled, hash_tiles

# Enough for a thread to be worth waking, and to even out what the threads get.
JOB_BYTES = 4 << 20


def hash_all(hashes: BulkHashes, cuts: Sequence[Tiled], threads: int) -> list[list[bytes]]:
    """Return the tile digests of each cut, in C order of its grid.

    All threads are done when it returns or raises: none still reads an array.
    """
    if threads == 1:
        return [hash_tiles(hashes, cut) for cut in cuts]
    pool = _pool(threads)
    jobs: list[list[Future[list[bytes]]]] = []
    try:
        for cut in cuts:
            parts = cut.parts(JOB_BYTES)
            jobs.append([pool.submit(hash_tiles, hashes, part) for part in parts])
        return [[digest for job in of_cut for digest in job.result()] for of_cut in jobs]
    finally:
        wait([job for of_cut in jobs for job in of_cut])


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="anh-digest")
