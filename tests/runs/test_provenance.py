"""What a result says of the code that produced it."""

import hashlib

from metarl.runs.provenance import MAX_DIFF, limited


def test_a_short_diff_is_kept_and_of_a_long_one_the_digest():
    short, long = "+é" * (MAX_DIFF // 2), "+" * (MAX_DIFF + 1)
    assert limited(short) == short
    assert limited(long) == (
        f"left out: {MAX_DIFF + 1} characters, SHA-256 {hashlib.sha256(long.encode()).hexdigest()}"
    )
