"""`python -m pymig.cli`."""

from pymig.cli import main

if __name__ == "__main__":
    main()
