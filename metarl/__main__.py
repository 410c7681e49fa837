"""`python -m metarl`, and the command `metarl`."""

import sys


def main() -> int:
    """Run a command as `metarl.cli.main`, also if Ctrl-C comes while that is imported."""
    try:
        from metarl.cli.main import main as run

        return run()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
