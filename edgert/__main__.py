"""`python -m edgert`."""

from edgert.cli.main import run

if __name__ == "__main__":
    run()
