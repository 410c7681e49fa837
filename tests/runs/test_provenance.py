"""What a result says of the code that produced it."""

import hashlib
import subprocess

from threadpoolctl import threadpool_info

from metarl.runs import provenance as module
from metarl.runs.provenance import MAX_DIFF, limited, provenance


def test_a_short_diff_is_kept_and_of_a_long_one_the_digest():
    short, long = "+é" * (MAX_DIFF // 2), "+" * (MAX_DIFF + 1)
    assert limited(short) == short
    assert limited(long) == (
        f"left out: {MAX_DIFF + 1} characters, SHA-256 {hashlib.sha256(long.encode()).hexdigest()}"
    )


def test_uncommitted_lines_may_be_in_any_encoding(tmp_path, monkeypatch):
    def git(*words):
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", "-C", tmp_path, *identity, *words], check=True)

    changed, place = tmp_path / "notes.txt", tmp_path / "metarl" / "runs" / "provenance.py"
    changed.write_bytes(b"old\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    changed.write_bytes("café\n".encode("latin-1"))
    monkeypatch.setattr(module, "__file__", str(place))
    assert provenance()["git"]["diff"].endswith("-old\n+caf\N{REPLACEMENT CHARACTER}")


def test_code_of_which_git_tells_nothing_is_unknown(tmp_path, monkeypatch):
    (tmp_path / ".git").mkdir()  # of no repository
    monkeypatch.setattr(module, "__file__", str(tmp_path / "metarl" / "runs" / "provenance.py"))
    assert provenance()["git"] is None


def test_the_kernels_of_matrix_products_are_told_and_what_chose_them(monkeypatch):
    architectures = [x["architecture"] for x in threadpool_info() if x["user_api"] == "blas"]
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    names = provenance()["matrix_products"]
    assert names == ", ".join(sorted(architectures))
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    assert provenance()["matrix_products"] == f"{names}, set by OPENBLAS_CORETYPE"
    monkeypatch.setattr(module, "threadpool_info", list)
    monkeypatch.delenv("OPENBLAS_CORETYPE")
    assert provenance()["matrix_products"] == "unknown"
