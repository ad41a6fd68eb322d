"""`python -m benchmarks.imaging`."""

from benchmarks.imaging.command import main

if __name__ == "__main__":
    main()
