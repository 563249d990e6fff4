"""`python -m app` is `hybrid-router`."""

from app.cli import main

if __name__ == "__main__":
    main(prog_name="hybrid-router")
