"""Entry point of a worker, run by path: the project need not be installed in its interpreter."""

import importlib.util
import os
import sys

FOLDER = os.path.dirname(os.path.realpath(__file__))
PACKAGE = "metarl_worker"


def load_package() -> None:
    """Make this folder importable as a package of its own, whose modules hide no others."""
    # A script's folder is the first entry of the import path, where its modules would hide others.
    sys.path = [entry for entry in sys.path if os.path.realpath(entry or ".") != FOLDER]
    file = os.path.join(FOLDER, "__init__.py")
    spec = importlib.util.spec_from_file_location(
        PACKAGE, file, submodule_search_locations=[FOLDER]
    )
    assert spec is not None
    assert spec.loader is not None
    sys.modules[PACKAGE] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[PACKAGE])


if __name__ == "__main__":
    load_package()
    importlib.import_module(f"{PACKAGE}.program").main()
